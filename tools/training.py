"""A round's work without a node: sample groups, grade them, prepare them for an update."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch

from node.config import TrainerSettings
from node.trainer.engines.engine import Engine, TrainingGroup
from node.trainer.engines.sampler import Sample
from node.trainer.learning import grpo
from node.trainer.learning.loss_scale import LossScale
from node.trainer.learning.off_policy_filter import filter_mask, mean_nll
from node.trainer.worker.session import TaskContext
from protocols.games.share import has_advantage, question_text
from protocols.manifest import GameSpec

TASK = TaskContext(lambda: False, lambda done, total: None)
"""A task without an observer: nobody cancels it or reads its progress."""


class Rollout(msgspec.Struct, frozen=True):
    """One question with its group of completions and their rewards."""

    question: str
    samples: list[Sample]
    rewards: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean reward."""
        return sum(self.rewards) / len(self.rewards)

    @property
    def informative(self) -> bool:
        """Whether an update can learn from it."""
        return has_advantage(self.rewards)


def sampled(engine: Engine, game: GameSpec, questions: Sequence[str], rng: torch.Generator) -> list[list[Sample]]:
    """Return a group of completions for each question."""
    return engine.sample([question_text(game, each) for each in questions], game.num_generations, rng, lambda: False)


def training_group(engine: Engine, game: GameSpec, rollout: Rollout, *, external: bool = False) -> TrainingGroup:
    """Return a group in the form that an update takes."""
    return TrainingGroup(
        prompt=engine.encode(question_text(game, rollout.question)),
        completions=[sample.tokens for sample in rollout.samples],
        behaviour=[sample.logps for sample in rollout.samples],
        advantages=grpo.advantages(rollout.rewards) if rollout.informative else [0.0] * len(rollout.rewards),
        external=external,
    )


def updated(
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[TrainingGroup],
    settings: TrainerSettings,
    game: GameSpec,
) -> int:
    """Make one update on the groups that have an advantage and are credible, as in a node; none if no group is both.

    Return how many the off-policy filter left out.
    """
    useful = grpo.informative(groups)
    limit, scale = (
        grpo.MicroBatchLimit(settings.micro_batch, engine.micro_batch_tokens),
        LossScale(needed=engine.half_precision),
    )
    own_nll = mean_nll([group for group in groups if not group.external])
    mask = filter_mask(engine, useful, own_nll, limit, lambda _: None)
    kept = [group for group, each in zip(useful, mask, strict=True) if each]
    if kept:
        objective = grpo.objective_of(settings, game)
        grpo.update(engine, optimizer, kept, objective, limit=limit, scale=scale, watch=lambda _: None)
    return len(useful) - len(kept)
