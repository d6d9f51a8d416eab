"""One update of group relative policy optimisation, readable from top to bottom.

The objective per token is the clipped one of PPO (arXiv 1707.06347) with GRPO's group-normalised advantage (arXiv
2402.03300), DAPO's wider upper clip and mean over all tokens of the update (arXiv 2503.14476), no KL term. Groups of
other peers were sampled by other policies: their tokens are weighted by the truncated, detached importance ratio.

    loss = - sum over tokens of w * min(r * A, clip(r, 1 - low, 1 + high) * A) / number of tokens
    r = pi / pi_old       pi_old as recorded while sampling for own tokens; for external ones pi itself without
                          gradient, so that r is 1 in value and its gradient is that of log pi
    w = min(pi / mu, cap) for external tokens with known mu (their sampling policy), else 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from node.trainer.engine import Cancelled, Engine, TrainingGroup

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
DEVIATION_FLOOR = 1e-4
"""Added to a group's standard deviation."""


class Outcome(msgspec.Struct, frozen=True):
    """What an update did: loss, gradient norm before clipping, tokens; `stepped` is False where it was skipped."""

    stepped: bool
    loss: float
    norm: float
    tokens: int


def advantages(rewards: Sequence[float]) -> list[float]:
    """Return each completion's advantage: reward minus the group's mean, over its (sample) standard deviation."""
    mean = math.fsum(rewards) / len(rewards)
    variance = math.fsum((reward - mean) ** 2 for reward in rewards) / max(1, len(rewards) - 1)
    return [(reward - mean) / (math.sqrt(variance) + DEVIATION_FLOOR) for reward in rewards]


def informative(groups: Sequence[TrainingGroup]) -> list[TrainingGroup]:
    """Return the groups that have a gradient: some advantage is not zero."""
    return [group for group in groups if any(abs(each) > 1e-6 for each in group.advantages)]


def micro_batches(
    groups: Sequence[TrainingGroup], most: int, cost: Callable[[TrainingGroup], int]
) -> list[list[TrainingGroup]]:
    """Split an update into parts of at most `most` completions, of groups that cost about the same.

    A group larger than `most` is cut: completions are independent once advantages are known.
    """
    pieces = sorted((piece for group in groups for piece in cut(group, most)), key=cost)
    parts: list[list[TrainingGroup]] = []
    room = 0
    for piece in pieces:
        if len(piece.completions) > room:
            parts.append([])
            room = most
        parts[-1].append(piece)
        room -= len(piece.completions)
    return parts


def cut(group: TrainingGroup, most: int) -> list[TrainingGroup]:
    """Return the group in pieces of at most `most` completions."""
    return [
        msgspec.structs.replace(
            group,
            completions=group.completions[first : first + most],
            behaviour=group.behaviour[first : first + most],
            advantages=group.advantages[first : first + most],
        )
        for first in range(0, len(group.completions), most)
    ]


def token_losses(logps: Tensor, old: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of each token, not yet divided by their number; all arguments have shape [tokens]."""
    ratio = torch.exp(logps - old)
    clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    return -weight * torch.minimum(ratio * advantage, clipped * advantage)


def importance_weights(logps: Tensor, behaviour: Tensor, cap: float) -> Tensor:
    """Return min(pi / mu, cap) per token, without gradient."""
    return torch.exp(logps.detach() - behaviour).clamp(max=cap)


def loss_of(logps: Tensor, groups: Sequence[TrainingGroup], tokens: int, cap: float) -> Tensor:
    """Return the loss of a micro-batch from its log-probabilities; `tokens` counts the whole update's."""
    advantage, behaviour, external = (torch.tensor(each, device=logps.device) for each in _per_token(groups))
    unknown = behaviour.isnan()
    old = torch.where(external | unknown, logps.detach(), behaviour)
    weight = torch.where(external & ~unknown, importance_weights(logps, behaviour, cap), 1.0)
    return token_losses(logps, old, advantage, weight).sum() / tokens


def _per_token(groups: Sequence[TrainingGroup]) -> tuple[list[float], list[float], list[bool]]:
    """Return advantage, log-probability while sampling (NaN where unknown) and whether it is external, per token."""
    advantage: list[float] = []
    behaviour: list[float] = []
    external: list[bool] = []
    for group in groups:
        for completion, known, value in zip(group.completions, group.behaviour, group.advantages, strict=True):
            advantage += [value] * len(completion)
            behaviour += known or [math.nan] * len(completion)
            external += [group.external] * len(completion)
    return advantage, behaviour, external


def update(
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[TrainingGroup],
    *,
    micro_batch: int,
    cap: float,
    max_norm: float,
    cancelled: Callable[[], bool],
) -> Outcome:
    """Make one step on groups that all have an advantage, gradients summed over micro-batches of completions.

    Loss or gradient that is not finite: the step is skipped. Raises `Cancelled` between micro-batches. However it
    ends, no gradient is left behind and the weights are those before or those after.
    """
    tokens = sum(len(completion) for group in groups for completion in group.completions)
    total = 0.0
    engine.train_mode(True)
    try:
        for part in micro_batches(groups, micro_batch, engine.cost):
            if cancelled():
                raise Cancelled("during an update")
            loss = loss_of(engine.completion_logps(part), part, tokens, cap)
            total += loss.item()
            if not math.isfinite(total):
                return Outcome(False, total, math.nan, tokens)
            loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(list(engine.parameters()), max_norm))
        if not math.isfinite(norm):
            return Outcome(False, total, norm, tokens)
        optimizer.step()
        engine.weights_changed()
        return Outcome(True, total, norm, tokens)
    finally:
        optimizer.zero_grad(set_to_none=True)
        engine.train_mode(False)
