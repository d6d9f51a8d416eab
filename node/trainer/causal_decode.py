"""Sampling: the prefix is computed once per weights, each question once, and rows that have ended leave the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from node.trainer.causal_attention import Branch, DecodePlan, Pair, Plan, QuestionsPlan, padding_mask
from node.trainer.engine import Cancelled

PREFILL_TOKENS = 512
"""Question tokens per forward pass; between two passes a task can be cancelled."""

Forward = Callable[[list[int], list[int], Plan], Tensor]
"""Run ids at positions under a plan; return the last hidden states [N, width]."""


class Sampler(NamedTuple):
    """What sampling needs of a model and a game."""

    forward: Forward
    logits: Callable[[Tensor], Tensor]
    prefix: dict[int, Pair]
    prefix_length: int
    stops: Tensor
    limit: int
    temperature: float
    greedy: bool
    cancelled: Callable[[], bool]


class Row(NamedTuple):
    """One sampled completion, its stop token included; `finished` is False where it was cut at the limit."""

    tokens: list[int]
    logps: list[float]
    finished: bool


def sample_rows(
    how: Sampler, prompts: Sequence[list[int]], draws: Tensor, ended: Callable[[int], None]
) -> list[list[Row]]:
    """Sample completions of all prompts in one batch.

    `draws` [questions, group, limit] holds uniform numbers in [0, 1), one for each token: a row's outcome does not
    depend on its neighbours. `ended(n)` is called after every token with the rows that have ended so far. Raises
    `Cancelled` between two tokens.
    """
    group = draws.shape[1]
    branches, last = _prefill(how, prompts)
    plan = DecodePlan(how.prefix, branches, group, how.limit)
    hidden = last.repeat_interleave(group, 0)
    rows: list[tuple[list[int], list[float]]] = [([], []) for _ in range(len(prompts) * group)]
    starts = [how.prefix_length + len(prompt) for prompt in prompts for _ in range(group)]
    uniform = draws.flatten(0, 1).to(hidden.device)
    names = running = torch.arange(len(rows), device=hidden.device)
    finished: set[int] = set()
    for step in range(how.limit):
        tokens, logps = _choose(how.logits(hidden), uniform[names, step], how.temperature, how.greedy)
        for name, token, logp in zip(names.tolist(), tokens.tolist(), logps.tolist(), strict=True):
            rows[name][0].append(token)
            rows[name][1].append(logp)
        going = ~torch.isin(tokens, how.stops)
        finished.update(names[~going].tolist())
        names, running, tokens = names[going], running[going], tokens[going]
        ended(len(rows) - len(names))
        _stop_if(how.cancelled)
        if step + 1 == how.limit or not len(names):
            break
        running = _compacted(plan, running, group)
        plan.advance(running)
        hidden = how.forward(tokens.tolist(), [starts[name] + step for name in names.tolist()], plan)
    made = [Row(*row, name in finished) for name, row in enumerate(rows)]
    return [made[i : i + group] for i in range(0, len(made), group)]


def _prefill(how: Sampler, prompts: Sequence[list[int]]) -> tuple[dict[int, Branch], Tensor]:
    """Return the questions' keys and values by layer, and the hidden state [Q, width] of each one's last token."""
    parts: list[dict[int, Branch]] = []
    last: list[Tensor] = []
    for some in _slices(prompts):
        _stop_if(how.cancelled)
        lengths = [len(prompt) for prompt in some]
        plan = QuestionsPlan(lengths, how.prefix, how.stops.device)
        positions = [how.prefix_length + i for length in lengths for i in range(length)]
        hidden = how.forward([token for prompt in some for token in prompt], positions, plan)
        ends = torch.tensor(lengths, device=hidden.device).cumsum(0) - 1
        last.append(hidden.index_select(0, ends))
        parts.append(plan.branches)
    lengths = [len(prompt) for prompt in prompts]
    return {layer: _joined([part[layer] for part in parts], lengths) for layer in parts[0]}, torch.cat(last)


def _slices(prompts: Sequence[list[int]]) -> list[list[list[int]]]:
    """Cut the prompts into runs of about `PREFILL_TOKENS`, at least one prompt each."""
    slices: list[list[list[int]]] = [[]]
    for prompt in prompts:
        if slices[-1] and sum(map(len, slices[-1])) + len(prompt) > PREFILL_TOKENS:
            slices.append([])
        slices[-1].append(prompt)
    return slices


def _joined(parts: list[Branch], lengths: list[int]) -> Branch:
    """Return one branch of all questions, padded to the longest."""
    longest = max(lengths)
    wide = [
        [torch.nn.functional.pad(states, (0, 0, 0, longest - states.shape[2])) for states in part[:2]] for part in parts
    ]
    keys, values = (torch.cat(states, 1) for states in zip(*wide, strict=True))
    return Branch(keys, values, padding_mask(lengths, keys))


def _choose(logits: Tensor, uniform: Tensor, temperature: float, greedy: bool) -> tuple[Tensor, Tensor]:
    """Return token [n] and its log-probability [n] from logits [n, vocabulary], by inverting the distribution."""
    logps = (logits.float() / temperature).log_softmax(-1)
    if greedy:
        tokens = logps.argmax(-1)
    else:
        mass = logps.exp().cumsum_(-1)
        aim = (uniform[:, None] * mass[:, -1:]).contiguous()
        tokens = torch.searchsorted(mass, aim, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]


def _compacted(plan: DecodePlan, running: Tensor, group: int) -> Tensor:
    """Let go of questions whose rows have all ended, once they are the half; return the running rows' new numbers."""
    alive, place = torch.unique(running // group, return_inverse=True)
    if 2 * len(alive) > plan.questions:
        return running
    plan.keep(alive)
    numbers: Tensor = place * group + running % group
    return numbers


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled
