"""One update of group relative policy optimisation, readable from top to bottom.

The objective per token is the clipped one of PPO (arXiv 1707.06347) with GRPO's group-normalised advantage and KL term
(arXiv 2402.03300), DAPO's wider upper clip and mean over all tokens of the update (arXiv 2503.14476). Dr. GRPO (arXiv
2503.20783) leaves out the division by the deviation and divides by a constant. Groups of other peers were sampled by
other policies: their tokens are weighted by the truncated, detached importance ratio, or, as in SAPO (arXiv
2509.08721), taken as if this policy had sampled them.

    loss = sum over tokens of [ -w * min(r * A, clip(r, 1 - epsilon, 1 + epsilon_high) * A) + beta * k3 ] / normaliser
    r = pi / pi_old       pi_old as recorded while sampling for own tokens; for external ones pi itself without
                          gradient, so that r is 1 in value and its gradient is that of log pi
    w = min(pi / mu, cap) for external tokens with known mu (their sampling policy), else 1
    k3 = pi_ref / pi - log(pi_ref / pi) - 1                 (http://joschu.net/blog/kl-approx.html)
    normaliser = tokens of the update, or completions * longest possible completion (Dr. GRPO)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from node.config import TrainerSettings
from node.trainer.engines.engine import Engine, TrainingGroup
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup, full_tensor
from node.trainer.learning.loss_scale import LossScale
from node.trainer.learning.optimizer import make_step
from protocols.manifest import GameSpec

DEVIATION_FLOOR = 1e-4
"""Added to a group's standard deviation."""


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """What is minimised. `longest` > 0 is Dr. GRPO: advantages are not scaled, and a completion counts as so many
    tokens, whatever its length. `weighted` is False where external groups are taken as if sampled by this policy."""

    epsilon: float = 0.2
    epsilon_high: float = 0.28
    beta: float = 0.0
    cap: float = 2.0
    max_norm: float = 1.0
    longest: int = 0
    weighted: bool = True
    mask_truncated: bool = False


class MicroBatchLimit(msgspec.Struct, frozen=True):
    """How much goes through the model at once: completions, and tokens with their padding."""

    completions: int
    tokens: int

    def halved(self) -> MicroBatchLimit | None:
        """Return half the limit, or None if nothing smaller is left."""
        return MicroBatchLimit(self.completions // 2, max(1, self.tokens // 2)) if self.completions > 1 else None


class UpdateOutcome(msgspec.Struct, frozen=True):
    """What an update did: loss, gradient norm before clipping, tokens; `stepped` is False where it was skipped."""

    stepped: bool
    loss: float
    norm: float
    tokens: int


def objective_of(settings: TrainerSettings, game: GameSpec) -> Objective:
    """Return the objective that the settings describe."""
    return Objective(
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
        beta=settings.beta,
        cap=settings.importance_cap,
        max_norm=settings.max_grad_norm,
        longest=game.max_completion if settings.loss == "dr-grpo" else 0,
        weighted=settings.external == "weighted",
        mask_truncated=settings.mask_truncated,
    )


# --- advantages -------------------------------------------------------------------------------------------------------


def advantages(rewards: Sequence[float], *, scaled: bool = True) -> list[float]:
    """Return each completion's advantage: reward minus the group's mean, over its (sample) standard deviation.

    Dr. GRPO does not scale: a division by a small deviation favours questions that are nearly solved or hopeless.
    """
    mean = math.fsum(rewards) / len(rewards)
    if not scaled:
        return [reward - mean for reward in rewards]
    variance = math.fsum((reward - mean) ** 2 for reward in rewards) / max(1, len(rewards) - 1)
    return [(reward - mean) / (math.sqrt(variance) + DEVIATION_FLOOR) for reward in rewards]


def informative(groups: Sequence[TrainingGroup]) -> list[TrainingGroup]:
    """Return the groups that have a gradient: some advantage is not zero."""
    return [group for group in groups if any(abs(each) > 1e-6 for each in group.advantages)]


# --- micro-batches ----------------------------------------------------------------------------------------------------


def micro_batches(
    groups: Sequence[TrainingGroup], limit: MicroBatchLimit, cost: Callable[[TrainingGroup], int]
) -> list[list[TrainingGroup]]:
    """Split an update into micro-batches within the limit, of groups that cost about the same tokens each.

    A micro-batch costs as many tokens as its longest group times its groups: shorter ones are padded. A group beyond
    the limit is cut: completions are independent once advantages are known. One completion is never refused.
    """
    pieces = sorted((piece for group in groups for piece in cut(group, limit, cost)), key=cost)
    parts: list[list[TrainingGroup]] = []
    completions = 0
    for piece in pieces:
        completions += len(piece.completions)
        is_full = (
            completions > limit.completions or (len(parts[-1]) + 1) * cost(piece) > limit.tokens if parts else True
        )
        if is_full:
            parts.append([])
            completions = len(piece.completions)
        parts[-1].append(piece)
    return parts


def cut(group: TrainingGroup, limit: MicroBatchLimit, cost: Callable[[TrainingGroup], int]) -> list[TrainingGroup]:
    """Return the group in the fewest pieces of equal size, at least one completion, each within the limit."""
    size = min(len(group.completions), limit.completions)
    while size > 1 and max(map(cost, _pieces(group, size))) > limit.tokens:
        size -= 1
    return _pieces(group, size)


def _pieces(group: TrainingGroup, size: int) -> list[TrainingGroup]:
    return [
        msgspec.structs.replace(
            group,
            completions=group.completions[first : first + size],
            behaviour=group.behaviour[first : first + size],
            advantages=group.advantages[first : first + size],
        )
        for first in range(0, len(group.completions), size)
    ]


# --- loss -------------------------------------------------------------------------------------------------------------


def policy_losses(logps: Tensor, old: Tensor, advantage: Tensor, weight: Tensor, objective: Objective) -> Tensor:
    """Return the clipped policy loss of each token; all tensors have shape [tokens]."""
    ratio = torch.exp(logps - old)
    clipped = ratio.clamp(1 - objective.epsilon, 1 + objective.epsilon_high)
    return -weight * torch.minimum(ratio * advantage, clipped * advantage)


def importance_weights(logps: Tensor, behaviour: Tensor, cap: float) -> Tensor:
    """Return min(pi / mu, cap) per token, without gradient."""
    return torch.exp(logps.detach() - behaviour).clamp(max=cap)


def divergence(logps: Tensor, reference: Tensor) -> Tensor:
    """Return the k3 estimate of KL(pi || reference) at each sampled token: never negative, unbiased."""
    ahead = reference - logps
    return torch.expm1(ahead) - ahead


def loss_of(
    logps: Tensor,
    groups: Sequence[TrainingGroup],
    objective: Objective,
    normaliser: float,
    reference: Tensor | None = None,
) -> Tensor:
    """Return the loss of a micro-batch from its log-probabilities [tokens] and those under the reference.

    `normaliser` is the whole update's (`normaliser_of`), so that losses and gradients of micro-batches add up.
    """
    advantage, behaviour, external = (torch.tensor(each, device=logps.device) for each in _per_token(groups))
    unknown = behaviour.isnan()
    old = torch.where(external | unknown, logps.detach(), behaviour)
    weighted = external & ~unknown & objective.weighted
    weight = torch.where(weighted, importance_weights(logps, behaviour, objective.cap), 1.0)
    losses = policy_losses(logps, old, advantage, weight, objective)
    if reference is not None:
        losses = losses + objective.beta * divergence(logps, reference)
    return losses.sum() / normaliser


def normaliser_of(groups: Sequence[TrainingGroup], objective: Objective) -> float:
    """Return what the summed loss of an update is divided by."""
    if objective.longest:
        return float(objective.longest * sum(len(group.completions) for group in groups))
    return float(tokens_of(groups))


def tokens_of(groups: Sequence[TrainingGroup]) -> int:
    """Return the completion tokens of groups."""
    return sum(len(completion) for group in groups for completion in group.completions)


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


# --- update -----------------------------------------------------------------------------------------------------------


def update(
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[TrainingGroup],
    objective: Objective,
    *,
    limit: MicroBatchLimit,
    scale: LossScale,
    watch: Callable[[int], None],
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> UpdateOutcome:
    """Make one step on groups that all have an advantage, gradients summed over micro-batches.

    `watch(tokens)` is called before each micro-batch, and before the step, with the tokens (as `engine.cost` counts)
    that are done; it may raise. Micro-batches are sharded over `process_group`, whose gradients FSDP averages. If loss
    or gradient is not finite, the step is skipped. However this ends, no gradient is left behind and the weights are
    those before or those after.
    """
    tokens, normaliser = tokens_of(groups), normaliser_of(groups, objective)
    parameters = list(engine.parameters())
    total, done = 0.0, 0
    engine.train_mode(True)
    try:
        for turn, part, counts in process_group.shard(micro_batches(groups, limit, engine.cost)):
            watch(done)
            reference = engine.reference_logps(part) if objective.beta else None
            loss = loss_of(engine.completion_logps(part), part, objective, normaliser, reference)
            total += process_group.all_reduce(loss.item() * counts)
            if not math.isfinite(total):
                return UpdateOutcome(False, total, math.nan, tokens)
            scale.up(loss * (process_group.world_size * counts)).backward()  # type: ignore[no-untyped-call]
            done += sum(engine.cost(group) for each in turn for group in each)
        watch(done)
        scale.down(parameters)
        norm = float(full_tensor(torch.nn.utils.clip_grad_norm_(parameters, objective.max_norm)))
        if not math.isfinite(norm):
            return UpdateOutcome(False, total, norm, tokens)
        make_step(optimizer)
        engine.weights_changed()
        return UpdateOutcome(True, total, norm, tokens)
    finally:
        optimizer.zero_grad(set_to_none=True)
        engine.train_mode(False)
