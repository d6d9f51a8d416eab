"""Work that fits the deadline: what was measured of this node's speed, and what follows from it."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.state import State, TrainerTask

MARGIN = 0.1
"""Share of a stage that is kept free, for publishing and for clocks that disagree."""
UNMEASURED = 0.25
"""Share of a stage that training is assumed to need until it was measured."""
CAUTION = 1.25
"""Training may take this many times as long as the last ones; so would an aborted task."""
SMOOTHING = 0.5
"""Weight of the newest measurement in the moving average."""
RETRY_FACTOR = 0.8
"""Factor on the measured times after a stage was skipped for slowness: a node that was slow once tries again."""


def local_deadline(state: State) -> float:
    """Return the stage's deadline in local time."""
    return state.deadline - state.offset


def local_pause_end(state: State) -> float:
    """Return when the organiser's pause lapses, in local time; 0.0 where the swarm runs."""
    return state.paused_until - state.offset if state.paused_until else 0.0


def stage_seconds(state: State) -> int:
    """Return how long the current stage lasts."""
    return state.parameters.seconds[state.stage]


def local_time_at(state: State, share: float) -> float:
    """Return the local time at which this share of the current stage's time has passed."""
    return local_deadline(state) - (1 - share) * stage_seconds(state)


def margin(state: State) -> float:
    """Return the seconds of the current stage that are kept free."""
    return MARGIN * stage_seconds(state)


def training_estimate(state: State) -> float:
    """Return how long training in this stage will take, in seconds."""
    return state.speed.train or UNMEASURED * stage_seconds(state)


def latest_training_start(state: State) -> float:
    """Return the local time at which training must begin to be done by the deadline."""
    return local_deadline(state) - margin(state) - CAUTION * training_estimate(state)


def quote_deadline(state: State) -> float:
    """Return the local time from which the current stage no longer waits for bodies to quote."""
    waits = state.parameters.waits
    wait = waits[state.stage] if state.stage < len(waits) else 0.0
    return local_time_at(state, wait)


def groups_that_fit(state: State, at: float) -> int:
    """Return how many groups can be generated and trained on before the deadline; all while nothing is measured."""
    left = local_deadline(state) - at - margin(state)
    if not state.speed.generate:
        return state.parameters.generated if left > 0 else 0
    free = left - training_estimate(state)
    return max(0, min(state.parameters.generated, int(free / state.speed.generate)))


def learn_generation_speed(state: State, groups: int, seconds: float) -> State:
    """Learn from a finished generation."""
    if groups <= 0 or seconds <= 0:
        return state
    return replace(state, speed=replace(state.speed, generate=_mean(state.speed.generate, seconds / groups)))


def learn_training_speed(state: State, seconds: float) -> State:
    """Learn from a finished training."""
    if seconds <= 0:
        return state
    return replace(state, speed=replace(state.speed, train=_mean(state.speed.train, seconds)))


def learn_from_abort(state: State, task: TrainerTask, at: float) -> State:
    """Learn from an aborted task: it takes longer than it had.

    At most the time of its own stage and the next counts: a computer that slept meanwhile was not slow all that time.
    """
    seconds, stages = state.parameters.seconds, state.parameters.stages
    given = seconds[task.stage] + seconds[(task.stage + 1) % stages]
    spent = CAUTION * min(max(0.0, at - task.since), given)
    speed = state.speed
    if task.kind == "train":
        return replace(state, speed=replace(speed, train=max(speed.train, spent)))
    return replace(state, speed=replace(speed, generate=max(speed.generate, spent / max(1, task.groups))))


def with_retry_speed(state: State) -> State:
    """Assume a somewhat faster node than measured, so that it tries again after some stages."""
    speed = state.speed
    return replace(
        state, speed=replace(speed, generate=speed.generate * RETRY_FACTOR, train=speed.train * RETRY_FACTOR)
    )


def _mean(before: float, now: float) -> float:
    return SMOOTHING * now + (1 - SMOOTHING) * before if before else now
