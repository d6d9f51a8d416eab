"""Updates in time and in memory, and the way back from what is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from node.config import TrainerSettings
from node.trainer.checkpoints.checkpoint import Checkpoints
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.engine import Cancelled, NotFinite, TrainingGroup
from node.trainer.engines.process_group import ProcessGroup
from node.trainer.learning.learner import Learner
from node.trainer.learning.throughput import ThroughputEstimate, affordable
from node.trainer.memory.oom import is_memory
from node.trainer.service.worker_client import shrunk
from protocols.manifest import GameSpec


class Clock:
    """Seconds that pass only when told to, or by a fixed amount at every look."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def learner_on(
    engine: BuiltinEngine, directory: Path, clock: Callable[[], float] | None = None, **settings: object
) -> Learner:
    checkpoints = Checkpoints(directory / "checkpoints", 2, directory / "model")
    chosen = TrainerSettings(**settings)  # type: ignore[arg-type]
    return Learner(engine, chosen, GameSpec(), checkpoints, clock or Clock())


def groups(count: int) -> list[TrainingGroup]:
    return [
        TrainingGroup([5, 6, 7], [[8, 9], [10 + n, 11]], [[-6.0, -6.0]] * 2, [1.0, -1.0], external=False)
        for n in range(count)
    ]


def weights(engine: BuiltinEngine) -> list[torch.Tensor]:
    return [each.detach().clone() for each in engine.parameters()]


def same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def never() -> bool:
    return False


# --- not finite -------------------------------------------------------------------------------------------------------


def poisoned(engine: BuiltinEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every log-probability be no number, whatever the weights are."""
    true = engine.completion_logps
    monkeypatch.setattr(engine, "completion_logps", lambda some: true(some) * math.nan)


def test_three_bad_steps_lead_back_to_the_last_checkpoint(
    builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are skipped and counted; with the third the weights, optimiser and count of the checkpoint are back."""
    learner = learner_on(builtin, tmp_path, learning_rate=0.01)
    assert learner.update(groups(2), math.inf, never)
    learner.worked(4)
    learner.save()
    saved = weights(builtin)
    learner.update(groups(2), math.inf, never)
    moved = weights(builtin)
    poisoned(builtin, monkeypatch)

    for skipped in (1, 2):
        step = learner.update(groups(2), math.inf, never)
        assert step
        assert not step.outcome.stepped
        assert learner.counters.skipped == skipped
        assert same(weights(builtin), moved)
    learner.update(groups(2), math.inf, never)

    assert same(weights(builtin), saved)
    assert (learner.counters.round, learner.counters.updates, learner.counters.skipped) == (4, 1, 3)


def test_a_good_step_forgets_bad_ones(builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only steps in a row count."""
    learner = learner_on(builtin, tmp_path)
    for _ in range(3):
        with monkeypatch.context() as patch:
            poisoned(builtin, patch)
            learner.update(groups(1), math.inf, never)
            learner.update(groups(1), math.inf, never)
        learner.update(groups(1), math.inf, never)
    assert (learner.counters.updates, learner.counters.skipped) == (3, 6)


def test_weights_that_are_not_finite_are_not_saved(builtin: BuiltinEngine, tmp_path: Path) -> None:
    """The last good checkpoint stays the newest, and there always is one."""
    learner = learner_on(builtin, tmp_path)
    good = weights(builtin)
    with torch.no_grad():
        next(builtin.parameters()).fill_(math.nan)
    with pytest.raises(NotFinite):
        learner.save()
    for _ in range(3):
        learner.not_finite()
    assert same(weights(builtin), good)


def test_sampling_from_what_is_not_finite_is_refused(builtin: BuiltinEngine) -> None:
    """No token is drawn from logits that are no numbers."""
    with torch.no_grad():
        next(builtin.parameters()).fill_(math.nan)
    with pytest.raises(NotFinite):
        builtin.sample(["What is 2 + 2?"], 2, torch.Generator().manual_seed(1), never)


def test_float16_overflows_are_no_faults(
    builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss scale is halved; nothing is counted until it is 1."""
    builtin.half_precision = True
    learner = learner_on(builtin, tmp_path)
    poisoned(builtin, monkeypatch)
    for _ in range(16):
        learner.update(groups(1), math.inf, never)
    assert learner.counters.skipped == 0
    learner.update(groups(1), math.inf, never)
    assert learner.counters.skipped == 1


# --- memory -----------------------------------------------------------------------------------------------------------


def test_short_memory_shrinks_the_parts_of_an_update(
    builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same step is made in smaller parts, and the smaller size is kept."""
    true = builtin.completion_logps

    def tight(some: Sequence[TrainingGroup]) -> torch.Tensor:
        if sum(len(each.completions) for each in some) > 2:
            raise MemoryError
        return true(some)

    monkeypatch.setattr(builtin, "completion_logps", tight)
    learner = learner_on(builtin, tmp_path, micro_batch=8)
    step = learner.update(groups(4), math.inf, never)
    assert step
    assert step.outcome.stepped
    assert (learner.micro_batch_limit.completions, learner.counters.updates) == (2, 1)


def test_memory_is_short_by_whatever_says_so() -> None:
    """Python, torch's allocator on this machine, and what it is known to say on others; no other fault counts."""
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 52)
    assert is_memory(refused.value)
    assert is_memory(MemoryError())
    assert is_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_memory(RuntimeError("shape '[2]' is invalid for input of size 3"))
    assert not is_memory(OSError("out of memory"))


def test_memory_that_is_short_for_the_optimiser_leaves_no_half_of_it(
    builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step makes the moments: where only some of them find room, it can be made again."""
    learner = learner_on(builtin, tmp_path, micro_batch=8)
    true, room = torch.zeros_like, iter([True] * 5)

    def short(*args: Any, **kwargs: Any) -> torch.Tensor:
        if not next(room, False):
            raise MemoryError
        return true(*args, **kwargs)

    def first_step(*_: object) -> None:
        armed.remove()
        patch.setattr(torch, "zeros_like", short)

    with monkeypatch.context() as patch:
        armed = learner.optimizer.register_step_pre_hook(first_step)
        with pytest.raises(MemoryError):
            learner.update(groups(4), math.inf, never)
    step = learner.update(groups(4), math.inf, never)
    assert step
    assert step.outcome.stepped
    assert all(len(each) == 3 for each in learner.optimizer.state.values())


def test_memory_that_is_short_for_one_completion_is_a_fault(
    builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing left to shrink; the weights are as before."""

    def full(some: Sequence[TrainingGroup]) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")

    learner, before = learner_on(builtin, tmp_path), weights(builtin)
    monkeypatch.setattr(builtin, "completion_logps", full)
    with pytest.raises(RuntimeError, match="not enough memory"):
        learner.update(groups(2), math.inf, never)
    assert same(weights(builtin), before)


def test_short_memory_shrinks_sampling_and_changes_no_outcome(
    builtin: BuiltinEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer completions at once give the same completions."""
    texts = [f"What is {n} + {n}?" for n in range(6)]
    whole = builtin.sample(texts, 4, torch.Generator().manual_seed(1), never)
    true = builtin.forward

    def tight(ids: torch.Tensor, positions: torch.Tensor, plan: object) -> torch.Tensor:
        if getattr(plan, "questions", 0) > 2:
            raise MemoryError
        return true(ids, positions, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(builtin, "forward", tight)
    builtin.sampler.max_num_seqs = 24
    apart = builtin.sample(texts, 4, torch.Generator().manual_seed(1), never)
    assert builtin.sampler.max_num_seqs == 6
    assert [[s.tokens for s in some] for some in apart] == [[s.tokens for s in some] for some in whole]


def test_of_several_ranks_none_begins_again_by_itself(builtin: BuiltinEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would wait for tokens that it does not sample: all begin anew."""

    def full(*_: object) -> torch.Tensor:
        raise MemoryError

    builtin.process_group = ProcessGroup(rank=0, world_size=2)
    before = builtin.sampler.max_num_seqs
    monkeypatch.setattr(builtin, "forward", full)
    with pytest.raises(MemoryError):
        builtin.sample(["What is 2 + 2?"] * 4, 4, torch.Generator().manual_seed(1), never)
    assert builtin.sampler.max_num_seqs == before


def test_a_child_killed_for_memory_begins_smaller() -> None:
    """Half the completions at once, a plan for less memory."""
    smaller = shrunk(TrainerSettings(micro_batch=5, gpu_memory_utilization=0.8))
    assert smaller.micro_batch == 2
    assert smaller.gpu_memory_utilization == pytest.approx(0.6)
    assert shrunk(TrainerSettings(micro_batch=1)).micro_batch == 1


# --- time -------------------------------------------------------------------------------------------------------------


def test_an_update_takes_what_there_is_time_for(builtin: BuiltinEngine, tmp_path: Path) -> None:
    """Once the speed is known, an update is made on fewer groups, from the front, and none without time for one."""
    clock = Clock(tick=1.0)
    learner = learner_on(builtin, tmp_path, clock, micro_batch=2)
    learner.update(groups(4), math.inf, never)
    each = learner.throughput.seconds_per_token * builtin.cost(groups(1)[0]) * 1.15

    some = learner.update(groups(4), clock.now + 2.5 * each + 1, never)
    none = learner.update(groups(4), clock.now + 0.5 * each, never)

    assert some
    assert len(some.groups) == 2
    assert none is None
    assert learner.counters.updates == 2


def test_an_update_that_turns_out_too_slow_is_given_up(builtin: BuiltinEngine, tmp_path: Path) -> None:
    """Between two parts, with the weights as before; its speed is known from then on."""
    clock = Clock(tick=1.0)
    learner, before = learner_on(builtin, tmp_path, clock, micro_batch=2), weights(builtin)
    assert learner.update(groups(6), clock.now + 3, never) is None
    assert same(weights(builtin), before)
    assert learner.throughput.seconds_per_token > 0
    assert clock.now < 8


def slowed(engine: BuiltinEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have every part take so long that goes through the model."""
    true = engine.completion_logps

    def timed(some: Sequence[TrainingGroup]) -> torch.Tensor:
        clock.now += seconds
        return true(some)

    monkeypatch.setattr(engine, "completion_logps", timed)


def test_a_stall_is_got_over(builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was suspended during an update is found to be quick again after some trainings, though none can
    be begun by the estimate that it left."""
    clock = Clock()
    learner = learner_on(builtin, tmp_path, clock, micro_batch=2)
    with monkeypatch.context() as patch:
        slowed(builtin, clock, patch, 120.0)
        assert learner.update(groups(4), clock.now + 30, never) is None
    slowed(builtin, clock, monkeypatch, 1.0)
    assert learner.update(groups(4), clock.now + 30, never) is None

    whole = 0
    for _ in range(15):
        step = learner.update(groups(4), clock.now + 30, never)
        whole += step is not None and len(step.groups) == 4
    assert whole > 5


def test_an_end_of_a_training_too_short_for_a_group_says_nothing_of_the_speed(
    builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured just before is believed."""
    clock = Clock()
    learner = learner_on(builtin, tmp_path, clock, micro_batch=2)
    slowed(builtin, clock, monkeypatch, 1.0)
    for _ in range(3):
        assert learner.update(groups(4), clock.now + 30, never)
        before = learner.throughput.seconds_per_token
        assert learner.update(groups(4), clock.now + 0.1, never) is None
        assert learner.update(groups(4), clock.now, never) is None
        assert learner.throughput.seconds_per_token == before


def strange(count: int) -> list[TrainingGroup]:
    """Groups of another peer that nobody believes."""
    return [replace(each, behaviour=[[-50.0, -50.0]] * 2, external=True) for each in groups(count)]


def test_judging_others_groups_ends_with_the_time(
    builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than one part late; the next time as much is begun as there is time for."""
    clock = Clock()
    learner = learner_on(builtin, tmp_path, clock, micro_batch=2)
    slowed(builtin, clock, monkeypatch, 5.0)
    assert learner.update(strange(16), clock.now + 10, never) is None
    assert clock.now <= 15
    began = clock.now
    step = learner.update(strange(16), began + 30, never)
    assert step
    assert 0 < len(step.rejected) < 16
    assert clock.now <= began + 30


def test_what_is_only_judged_tells_the_speed(
    builtin: BuiltinEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all is left out, in one part, a training of many such updates still ends with its time."""
    clock = Clock()
    learner = learner_on(builtin, tmp_path, clock)
    slowed(builtin, clock, monkeypatch, 5.0)
    assert learner.update(strange(2), 10.0, never)
    assert learner.update(strange(2), 10.0, never) is None


def test_a_cancelled_update_ends_before_its_next_part(builtin: BuiltinEngine, tmp_path: Path) -> None:
    """The weights are as before."""
    learner, before = learner_on(builtin, tmp_path, micro_batch=2), weights(builtin)
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        learner.update(groups(6), math.inf, lambda: next(asked))
    assert same(weights(builtin), before)


def test_speed_is_an_average_of_late_measurements() -> None:
    """The first measurement counts whole, later ones half; nothing is learned from nothing."""
    assert ThroughputEstimate().updated(2.0, 10).seconds_per_token == pytest.approx(0.2)
    assert ThroughputEstimate(0.2).updated(4.0, 10).seconds_per_token == pytest.approx(0.3)
    assert ThroughputEstimate(0.2, stale=True).updated(4.0, 0) == ThroughputEstimate(0.2, stale=True)
    assert len(affordable(groups(5), lambda each: 10, 0.0, 0.001)) == 5
    assert len(affordable(groups(5), lambda each: 10, 1.0, 25.0)) == 2


def test_the_step_size_rises_then_stays(builtin: BuiltinEngine, tmp_path: Path) -> None:
    """Over `warmup_steps` updates, counted from the checkpoint on."""
    learner = learner_on(builtin, tmp_path, learning_rate=0.1, warmup_steps=2)
    seen = []
    for _ in range(3):
        learner.update(groups(1), math.inf, never)
        seen.append(learner.optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.05, 0.1, 0.1])
