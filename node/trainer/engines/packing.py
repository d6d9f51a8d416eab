"""Log-probabilities with gradient: all groups of a micro-batch in one flat row behind one prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from node.trainer.engines.engine import TrainingGroup
from node.trainer.engines.tree_attention import UpdatePlan
from node.trainer.memory.memory_plan import CHUNK


class Packed(NamedTuple):
    """One flat row: ids and positions [N], the plan of who attends to whom, and for each completion token in the
    order group, completion, token the place of its predecessor in the row [M] and its id [M]."""

    ids: list[int]
    positions: list[int]
    plan: UpdatePlan
    predecessors: list[int]
    targets: list[int]


def pack(
    prefix: Sequence[int], prompts: Sequence[list[int]], groups: Sequence[TrainingGroup], device: torch.device
) -> Packed:
    """Return prefix, all questions, then all completions but for their last tokens, which predict nothing."""
    ids, positions = list(prefix), list(range(len(prefix)))
    ends: list[int] = []
    for prompt in prompts:
        ids += prompt
        positions += range(len(prefix), len(prefix) + len(prompt))
        ends.append(len(ids) - 1)
    predecessors: list[int] = []
    targets: list[int] = []
    for prompt, group, end in zip(prompts, groups, ends, strict=True):
        start = len(prefix) + len(prompt)
        for completion in group.completions:
            known = completion[:-1]
            predecessors += [end, *range(len(ids), len(ids) + len(known))] if completion else []
            targets += completion
            ids += known
            positions += range(start, start + len(known))
    lengths = [[max(len(completion) - 1, 0) for completion in group.completions] for group in groups]
    plan = UpdatePlan(len(prefix), [len(prompt) for prompt in prompts], lengths, device)
    return Packed(ids, positions, plan, predecessors, targets)


def token_logps(
    hidden: Tensor, packed: Packed, logits: Callable[[Tensor], Tensor], temperature: float, *, recompute: bool
) -> Tensor:
    """Return the log-probability [M] of each completion token from the row's hidden states [N, width].

    Logits [`CHUNK`, vocabulary] are computed for completion tokens alone; `recompute` computes them again in
    the backward pass instead of keeping them.
    """
    before = hidden.index_select(0, torch.tensor(packed.predecessors, dtype=torch.long, device=hidden.device))
    targets = torch.tensor(packed.targets, dtype=torch.long, device=hidden.device)

    def score(states: Tensor, wanted: Tensor) -> Tensor:
        scores = logits(states).float()
        scores = scores if temperature == 1 else scores / temperature
        return -torch.nn.functional.cross_entropy(scores, wanted, reduction="none")

    parts = [
        checkpoint(score, states, wanted, use_reentrant=False) if recompute else score(states, wanted)
        for states, wanted in zip(torch.split(before, CHUNK), torch.split(targets, CHUNK), strict=True)
    ]
    return torch.cat(parts)
