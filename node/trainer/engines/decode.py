"""Sampling: the prefix is computed once per weights, each question once, and rows that have ended leave the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from node.trainer.engines.engine import Cancelled, NotFinite
from node.trainer.engines.tree_attention import AttentionPlan, Branch, DecodePlan, Pair, QuestionsPlan, padding_mask

PREFILL_TOKENS = 512
"""Question tokens per forward pass; between two passes a task can be cancelled."""

Forward = Callable[[Tensor, Tensor, AttentionPlan], Tensor]
"""Run ids [N] at positions [N] under a plan; return the last hidden states [N, width]."""


class Decoding(NamedTuple):
    """What decoding needs of a model and a game."""

    forward: Forward
    logits: Callable[[Tensor], Tensor]
    prefix: dict[int, Pair]
    prefix_length: int
    stops: Tensor
    limit: int
    temperature: float
    greedy: bool
    cancelled: Callable[[], bool]
    broadcast: Callable[[Tensor], Tensor]
    """Returns rank 0's tokens on every rank: several ranks sample alike."""


class Row(NamedTuple):
    """One sampled completion, its stop token included; `finished` is False where it was cut at the limit."""

    tokens: list[int]
    logps: list[float]
    finished: bool


def draws_for(questions: int, group: int, limit: int, rng: torch.Generator) -> Tensor:
    """Return uniform numbers [questions, group, limit] in [0, 1), one for each token of each completion.

    A question's numbers depend on the seed of `rng` (a CPU generator) and its own place, on nothing behind it.
    """
    return torch.rand(questions, group, limit, generator=rng)


def decode_batch(
    how: Decoding, prompts: Sequence[list[int]], draws: Tensor, ended: Callable[[int], None]
) -> list[list[Row]]:
    """Sample completions of all prompts in one batch.

    `draws` [questions, group, limit] holds uniform numbers (`draws_for`): a row's outcome does not depend on its
    neighbours. `ended(n)` is called after every token with the rows that have ended so far. Raises `Cancelled`
    between two tokens, `NotFinite` where the model gives no probabilities.
    """
    group = draws.shape[1]
    branches, last = _prefill(how, prompts)
    plan = DecodePlan(how.prefix, branches, group, how.limit)
    hidden = last.repeat_interleave(group, 0)
    device, count = hidden.device, len(hidden)
    starts = torch.tensor([how.prefix_length + len(prompt) for prompt in prompts], device=device)
    starts = starts.repeat_interleave(group)
    uniform = draws.flatten(0, 1).to(device)
    names = running = torch.arange(count, device=device)
    tokens = torch.zeros(count, how.limit, dtype=torch.long, device=device)
    logps = torch.zeros(count, how.limit, device=device)
    lengths = torch.full((count,), how.limit, device=device)
    for step in range(how.limit):
        chosen, chosen_logps = choose(how.logits(hidden), uniform[names, step], how.temperature, how.greedy)
        if not bool(chosen_logps.isfinite().all()):
            raise NotFinite(f"logits after {step} tokens are not finite")
        chosen = how.broadcast(chosen)
        tokens[names, step], logps[names, step] = chosen, chosen_logps
        going = ~torch.isin(chosen, how.stops)
        lengths[names[~going]] = step + 1
        kept = going.nonzero().squeeze(1)
        ended(count - len(kept))
        _stop_if(how.cancelled)
        if step + 1 == how.limit or not len(kept):
            names = names[kept]
            break
        if len(kept) < len(names):
            names, running, chosen = names[kept], running[kept], chosen[kept]
        running = _compacted(plan, running, group)
        plan.advance(running)
        hidden = how.forward(chosen, starts[names] + step, plan)
    return _rows(tokens, logps, lengths, set(names.tolist()), group)


def _rows(tokens: Tensor, logps: Tensor, lengths: Tensor, cut: set[int], group: int) -> list[list[Row]]:
    """Return the rows of each question; `cut` holds the numbers of those that never ended."""
    ends = lengths.tolist()
    made = [
        Row(ids[:end], values[:end], name not in cut)
        for name, (ids, values, end) in enumerate(zip(tokens.tolist(), logps.tolist(), ends, strict=True))
    ]
    return [made[i : i + group] for i in range(0, len(made), group)]


def _prefill(how: Decoding, prompts: Sequence[list[int]]) -> tuple[dict[int, Branch], Tensor]:
    """Return the questions' keys and values by layer, and the hidden state [Q, width] of each one's last token."""
    parts: list[dict[int, Branch]] = []
    last: list[Tensor] = []
    device = how.stops.device
    for some in _slices(prompts):
        _stop_if(how.cancelled)
        lengths = [len(prompt) for prompt in some]
        plan = QuestionsPlan(lengths, how.prefix, device)
        positions = [how.prefix_length + i for length in lengths for i in range(length)]
        ids = [token for prompt in some for token in prompt]
        hidden = how.forward(torch.tensor(ids, device=device), torch.tensor(positions, device=device), plan)
        last.append(hidden.index_select(0, torch.tensor(lengths, device=device).cumsum(0) - 1))
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


def choose(logits: Tensor, uniform: Tensor, temperature: float, greedy: bool) -> tuple[Tensor, Tensor]:
    """Return token [n] and its log-probability [n] under softmax(logits / temperature) from logits [n, vocabulary],
    by inverting the distribution at `uniform` [n]."""
    odds = (logits.float() / temperature).softmax(-1)
    if greedy:
        tokens = odds.argmax(-1)
    else:
        mass = odds.cumsum(-1)
        aim = (uniform[:, None] * mass[:, -1:]).contiguous()
        tokens = torch.searchsorted(mass, aim, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    return tokens, odds.gather(1, tokens[:, None])[:, 0].log()


def _compacted(plan: DecodePlan, running: Tensor, group: int) -> Tensor:
    """Let go of questions whose rows have all ended, once they are the half; return the running rows' new numbers."""
    if len(running) * 2 > plan.questions * group:
        return running
    alive, place = torch.unique(running // group, return_inverse=True)
    if 2 * len(alive) > plan.questions:
        return running
    plan.keep(alive)
    numbers: Tensor = place * group + running % group
    return numbers


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("between two tokens")
