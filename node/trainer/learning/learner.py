"""Makes updates and keeps the model sane: in time, within memory, and back from what is not finite."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from node.config import TrainerSettings
from node.trainer.checkpoints.checkpoint import Checkpoints, Counters
from node.trainer.engines.engine import Cancelled, Engine, NotFinite, TrainingGroup
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup, local_shard
from node.trainer.learning import grpo
from node.trainer.learning.loss_scale import LossScale
from node.trainer.learning.off_policy_filter import DEFAULT_NLL, OffPolicyFilter, filter_mask
from node.trainer.learning.optimizer import make_optimizer, set_rate
from node.trainer.learning.throughput import FORWARD_COST, SAFETY_MARGIN, ThroughputEstimate, affordable
from node.trainer.memory.oom import is_memory
from protocols.manifest import GameSpec

log = structlog.get_logger()

MAX_NOT_FINITE = 3
"""Steps in a row that may be skipped as not finite before the model goes back to its last checkpoint."""


class OutOfTime(Exception):  # noqa: N818 - what happened to the update
    """The update's seconds are over."""


class OptimizerStep(msgspec.Struct, frozen=True):
    """An update: how it went, the groups it was made on, and those that were left out by the off-policy filter."""

    outcome: grpo.UpdateOutcome
    groups: list[TrainingGroup]
    rejected: list[TrainingGroup] = []


NOTHING = OptimizerStep(grpo.UpdateOutcome(True, 0.0, 0.0, 0), [])
"""An update on no group at all: the weights are as they were."""


class Learner:
    """One model, its optimiser and its checkpoints."""

    def __init__(
        self,
        engine: Engine,
        settings: TrainerSettings,
        game: GameSpec,
        checkpoints: Checkpoints,
        clock: Callable[[], float] = time.monotonic,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """Resume from the newest checkpoint; without one write the first: there is always one to go back to."""
        self._engine, self._settings, self._checkpoints = engine, settings, checkpoints
        self.clock = process_group.broadcast_clock(clock)
        self._process_group = process_group
        self.objective = grpo.objective_of(settings, game)
        self.off_policy_filter: OffPolicyFilter = filter_mask
        self.optimizer = make_optimizer(engine, settings)
        self.micro_batch_limit = grpo.MicroBatchLimit(settings.micro_batch, engine.micro_batch_tokens)
        self._scale = LossScale(needed=engine.half_precision)
        self.throughput = ThroughputEstimate()
        self._bad = 0
        found = checkpoints.resume(engine, self.optimizer)
        self.counters = found or Counters()
        if found is None:
            checkpoints.save(engine, self.optimizer, self.counters)

    # --- updates --------------------------------------------------------------------------------------------------

    def update(
        self, groups: Sequence[TrainingGroup], until: float, cancelled: Callable[[], bool], own_nll: float = DEFAULT_NLL
    ) -> OptimizerStep | None:
        """Make one update on as many of the groups, from the front, as there is time for; None where there is none.

        Other peers' groups are left out if the off-policy filter rejects them; `own_nll` is the NLL per token of own
        completions.

        `until` is the clock's time at which it is over: what has been measured so far decides what is begun, and what
        turns out slower is given up between two micro-batches. Raises `Cancelled`, MemoryError and the like.
        """
        left = until - self.clock()
        chosen = affordable(groups, self._cost, self.throughput.seconds_per_token, left)
        if not chosen:
            self._none_fits(groups, left)
            return None
        if len(chosen) < len(groups):
            log.info("update.shortened", groups=len(chosen), of=len(groups))
        set_rate(self.optimizer, self._settings, self.counters.updates)
        try:
            made = self._within_memory(chosen, until, cancelled, own_nll)
        except OutOfTime:
            log.info("update.out_of_time", groups=len(chosen))
            return None
        if made.rejected:
            log.info("groups.off_policy", groups=len(made.rejected), of=len(chosen))
        if made.groups:
            self._note(made.outcome)
        return made

    def _cost(self, group: TrainingGroup) -> float:
        """Return the tokens that a group costs in an update, the off-policy filter for another peer's included."""
        return self._engine.cost(group) * (1 + FORWARD_COST * group.external)

    def _none_fits(self, groups: Sequence[TrainingGroup], seconds: float) -> None:
        """Let the estimate decay if there was time left and nothing could be started in it."""
        if groups and seconds > 0:
            needed = self._cost(groups[0]) * self.throughput.seconds_per_token * SAFETY_MARGIN
            log.info("update.none_fits", groups=len(groups), seconds=round(seconds, 1), one_takes=round(needed, 1))
            self.throughput = self.throughput.decayed()

    def _within_memory(
        self, groups: list[TrainingGroup], until: float, cancelled: Callable[[], bool], own_nll: float
    ) -> OptimizerStep:
        """Make the step; where memory runs out, again with half the micro-batch."""
        while True:
            try:
                return self._timed(groups, until, cancelled, own_nll)
            except (MemoryError, RuntimeError) as error:
                smaller = self.micro_batch_limit.halved()
                if not is_memory(error) or smaller is None or self._process_group.world_size > 1:
                    raise
                self.micro_batch_limit = smaller
                log.warning("memory.short", micro_batch=smaller.completions, micro_batch_tokens=smaller.tokens)

    def _timed(
        self, groups: list[TrainingGroup], until: float, cancelled: Callable[[], bool], own_nll: float
    ) -> OptimizerStep:
        began = self.clock()

        def watch(done: float) -> None:
            if cancelled():
                raise Cancelled("during an update")
            now = self.clock()
            self.throughput = self.throughput.updated(now - began, done)
            if done and now > until:
                raise OutOfTime

        kept, rejected = self._filtered(groups, own_nll, lambda tokens: watch(FORWARD_COST * tokens))
        judged = FORWARD_COST * sum(self._engine.cost(group) for group in groups if group.external)
        if not kept:
            self.throughput = self.throughput.updated(self.clock() - began, judged)
            return OptimizerStep(NOTHING.outcome, [], rejected)
        outcome = grpo.update(
            self._engine,
            self.optimizer,
            kept,
            self.objective,
            limit=self.micro_batch_limit,
            scale=self._scale,
            watch=lambda tokens: watch(judged + tokens),
            process_group=self._process_group,
        )
        return OptimizerStep(outcome, kept, rejected)

    def _filtered(
        self, groups: list[TrainingGroup], own_nll: float, watch: Callable[[int], None]
    ) -> tuple[list[TrainingGroup], list[TrainingGroup]]:
        """Return the groups that pass the off-policy filter and those that it rejects, alike on all ranks."""
        mask = self.off_policy_filter(self._engine, groups, own_nll, self.micro_batch_limit, watch)
        agreed = [self._process_group.broadcast_scalar(each) for each in mask]
        kept = [group for group, each in zip(groups, agreed, strict=True) if each]
        rejected = [group for group, each in zip(groups, agreed, strict=True) if not each]
        return kept, rejected

    # --- what is not finite ---------------------------------------------------------------------------------------

    def _note(self, outcome: grpo.UpdateOutcome) -> None:
        if outcome.stepped:
            self._bad = 0
            self._scale.stepped()
            self.counters = msgspec.structs.replace(self.counters, updates=self.counters.updates + 1)
        elif self._scale.overflowed():
            log.info("loss_scale.halved", value=self._scale.value)
        else:
            log.warning("update.skipped", reason="not finite", loss=outcome.loss, norm=outcome.norm)
            self.not_finite()

    def not_finite(self) -> None:
        """Count a step or task that was not finite; after `MAX_NOT_FINITE` in a row go back to the last checkpoint and
        compute in float32."""
        self.counters = msgspec.structs.replace(self.counters, skipped=self.counters.skipped + 1)
        self._bad += 1
        if self._bad < MAX_NOT_FINITE:
            return
        self._bad = 0
        wider = self._engine.use_float32()
        found = self._checkpoints.resume(self._engine, self.optimizer)
        self._scale = LossScale(needed=self._engine.half_precision)
        limit = self.micro_batch_limit
        self.micro_batch_limit = grpo.MicroBatchLimit(limit.completions, self._engine.micro_batch_tokens)
        skipped = self.counters.skipped
        if found is not None:
            self.counters = msgspec.structs.replace(found, skipped=skipped)
        log.warning(
            "model.fell_back", round=self.counters.round, updates=self.counters.updates, skipped=skipped,
            restored=found is not None, now_float32=wider,
        )  # fmt: skip

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def worked(self, round_number: int) -> None:
        """Note the round that was worked on."""
        self.counters = msgspec.structs.replace(self.counters, round=round_number)

    def save(self) -> None:
        """Write a checkpoint. Raises `NotFinite` where the weights are: the last good one stays the newest."""
        finite = all(bool(local_shard(each.detach()).isfinite().all()) for each in self._engine.parameters())
        if self._process_group.all_reduce(float(not finite)):
            raise NotFinite("the weights are not finite; the last checkpoint stays")
        self._checkpoints.save(self._engine, self.optimizer, self.counters)
