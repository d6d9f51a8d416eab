"""Work that fits the deadline: what was measured of this node's speed, and what follows from it."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.state import State, TrainerTask

MARGIN = 0.1
"""Share of a stage that is kept free, for publishing and for clocks that disagree."""
UNMEASURED = 0.25
"""Share of a stage that training is taken to need until it was measured."""
CAUTION = 1.25
"""Training may take this much longer than the last ones did; what was aborted would have taken this much longer."""
SMOOTHING = 0.5
"""Weight of the newest measurement in the moving average."""
RETRY_FACTOR = 0.8
"""Factor on the measured speed after a stage skipped for slowness: a node that was slow once tries again."""


def local_deadline(state: State) -> float:
    """Return the stage's deadline in local time."""
    return state.deadline - state.offset


def local_pause_end(state: State) -> float:
    """Return when the organiser's pause lapses, in local time; 0.0 where the swarm runs."""
    return state.paused_until - state.offset if state.paused_until else 0.0


def stage_seconds(state: State) -> int:
    """Return how long the current stage lasts."""
    return state.terms.seconds[state.stage]


def moment_of(state: State, share: float) -> float:
    """Return the local time at which this share of the current stage's time has passed."""
    return local_deadline(state) - (1 - share) * stage_seconds(state)


def margin(state: State) -> float:
    """Return the seconds of the current stage that are kept free."""
    return MARGIN * stage_seconds(state)


def training_estimate(state: State) -> float:
    """Return how long training in this stage will take, in seconds."""
    return state.pace.train or UNMEASURED * stage_seconds(state)


def latest_training_start(state: State) -> float:
    """Return the local time at which training must begin to be done by the deadline."""
    return local_deadline(state) - margin(state) - CAUTION * training_estimate(state)


def latest_quoting(state: State) -> float:
    """Return the local time from which the current stage waits no longer for what it quotes."""
    waits = state.terms.waits
    wait = waits[state.stage] if state.stage < len(waits) else 0.0
    return moment_of(state, wait)


def groups_that_fit(state: State, at: float) -> int:
    """Return how many groups can be generated and trained on before the deadline; all while nothing is measured."""
    left = local_deadline(state) - at - margin(state)
    if not state.pace.generate:
        return state.terms.generated if left > 0 else 0
    free = left - training_estimate(state)
    return max(0, min(state.terms.generated, int(free / state.pace.generate)))


def generated_in(state: State, groups: int, seconds: float) -> State:
    """Learn from a finished generation."""
    if groups <= 0 or seconds <= 0:
        return state
    return replace(state, pace=replace(state.pace, generate=_mean(state.pace.generate, seconds / groups)))


def trained_in(state: State, seconds: float) -> State:
    """Learn from a finished training."""
    if seconds <= 0:
        return state
    return replace(state, pace=replace(state.pace, train=_mean(state.pace.train, seconds)))


def learned_from_abort(state: State, task: TrainerTask, at: float) -> State:
    """Learn from work that was not done in time: it takes longer than it was given.

    It is given its own stage and the next one at most: a machine that slept meanwhile was not slow all that time.
    """
    seconds, stages = state.terms.seconds, state.terms.stages
    given = seconds[task.stage] + seconds[(task.stage + 1) % stages]
    spent = CAUTION * min(max(0.0, at - task.since), given)
    pace = state.pace
    if task.kind == "train":
        return replace(state, pace=replace(pace, train=max(pace.train, spent)))
    return replace(state, pace=replace(pace, generate=max(pace.generate, spent / max(1, task.groups))))


def with_retry_speed(state: State) -> State:
    """Take the node for somewhat faster than measured, so that it tries again after some stages."""
    pace = state.pace
    return replace(state, pace=replace(pace, generate=pace.generate * RETRY_FACTOR, train=pace.train * RETRY_FACTOR))


def _mean(before: float, now: float) -> float:
    return SMOOTHING * now + (1 - SMOOTHING) * before if before else now
