"""Skipping to the current round: work that is given up is counted once, with a reason for the operator."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.announcing import announce_messages_only
from node.machine.commands import AbortWork
from node.machine.external_bodies import bodies_to_quote
from node.machine.notices import SkippedToRound
from node.machine.pacing import learn_from_abort
from node.machine.state import Output, Result, State, TrainerTask, becomes, has_trained_in, is_eligible, stage_label
from protocols.schedule import step_number

DOING = {"generate": "generating", "train": "training", "evaluate": "evaluating", "save": "saving"}


def skip_stage(state: State, reason: str, at: float) -> Result:
    """Give up this node's work in the current stage; it works again in the next one. Votes continue."""
    following = (state.round, state.stage + 1) if state.stage + 1 < state.parameters.stages else (state.round + 1, 0)
    state = replace(
        state,
        work=becomes(state.work, "given up"),
        totals=replace(state.totals, stages_skipped=state.totals.stages_skipped + 1),
        last_skip=reason,
    )
    state, commands = announce_messages_only(state, at)
    return state, (SkippedToRound(state.round, state.stage, *following, reason), *commands)


def skip_to_stage(state: State, round_number: int, stage: int, at: float) -> Result:
    """Skip to the current round and stage: abort what no longer counts, count what was missed, say why.

    Training on published rollouts that is still running when the very next stage opens may finish: it improves the
    model. It is aborted when one more stage opens.
    """
    stale = stale_task(state, step_number(round_number, stage, state.parameters.stages))
    reason = skip_reason(state, stale, round_number, stage)
    rounds = rounds_missed(state, stale, round_number)
    stages = stages_missed(state, stale, round_number, stage)
    outputs: tuple[Output, ...] = ()
    if stale:
        state = replace(learn_from_abort(state, stale, at), task=None)
        outputs = (AbortWork(stale.round, stale.stage, reason),)
    totals = state.totals
    state = replace(
        state,
        gap_reason="",
        last_skip=reason or state.last_skip,
        totals=replace(
            totals, rounds_skipped=totals.rounds_skipped + rounds, stages_skipped=totals.stages_skipped + stages
        ),
    )
    if reason:
        outputs += (SkippedToRound(state.round, state.stage, round_number, stage, reason),)
    return state, outputs


def stale_task(state: State, new_step: int) -> TrainerTask | None:
    """Return the trainer's task if it can't count any more once `new_step` is open."""
    task = state.task
    if task is None or task.kind not in ("generate", "train"):
        return None
    behind = new_step - step_number(task.round, task.stage, state.parameters.stages)
    return None if task.kind == "train" and behind <= 1 else task


def skip_reason(state: State, stale: TrainerTask | None, round_number: int, stage: int) -> str:
    """Return why work is given up when a later stage opens; empty if nothing was missed or there was a notice
    before."""
    opened = f"when {stage_label(state, round_number, stage)} opened"
    missed = stages_missed(state, stale, round_number, stage)
    if state.gap_reason and missed:
        return f"{_span(state, stale, round_number, stage)} passed while {state.gap_reason}"
    if stale:
        return f"{DOING[stale.kind]} of {stage_label(state, stale.round, stale.stage)} was not done {opened}"
    if not missed:
        return ""
    if not unfinished(state, stale):
        return f"{_span(state, stale, round_number, stage)} passed unseen"
    here = stage_label(state, state.round, state.stage)
    if state.work.phase == "generate" and bodies_to_quote(state) is None:
        return f"{here} ended before there was anything that it could quote"
    if state.trainer == "absent":
        return f"{here} ended while the trainer was away"
    if state.trainer == "unknown":
        return f"{here} ended before the trainer was up"
    doing = "training" if state.work.phase == "train" else "generating"
    busy = f", the trainer was {DOING[state.task.kind]}" if state.task else ""
    return f"{doing} of {here} had not begun {opened}{busy}"


def unfinished(state: State, stale: TrainerTask | None) -> bool:
    """Return True if work of the current stage is lost when a later stage opens now."""
    if not is_eligible(state, state.me, state.round):
        return False
    finishing = stale is None and state.task is not None and _trains(state.task, state.round, state.stage)
    return state.work.phase == "generate" or (state.work.phase == "train" and not finishing)


def stages_missed(state: State, stale: TrainerTask | None, round_number: int, stage: int) -> int:
    """Return how many stages in which this node counted are lost by going on to a later one."""
    stages = state.parameters.stages
    new_step = step_number(round_number, stage, stages)
    first = max(step_number(state.round, state.stage, stages) + 1, state.peers.get(state.me, new_step) * stages)
    earlier = stale is not None and (stale.round, stale.stage) != (state.round, state.stage)
    return max(0, new_step - first) + unfinished(state, stale) + earlier


def rounds_missed(state: State, stale: TrainerTask | None, round_number: int) -> int:
    """Return how many whole rounds in which this node counted pass without any training of it."""
    missed = 0
    if stale and stale.kind == "train" and stale.round < state.round:
        missed += not has_trained_in(state, stale.round)
    if round_number > state.round:
        running = state.task is not None and state.task is not stale and _trains(state.task, state.round, None)
        missed += is_eligible(state, state.me, state.round) and not running and not has_trained_in(state, state.round)
        first = max(state.round + 1, state.peers.get(state.me, round_number))
        missed += max(0, round_number - first)
    return int(missed)


def count_lost_training(state: State, task: TrainerTask, reason: str) -> Result:
    """Count a training of an earlier stage that was still allowed to finish and never will."""
    if (task.round, task.stage) == (state.round, state.stage):
        return state, ()
    round_lost = task.round != state.round and not has_trained_in(state, task.round)
    totals = replace(
        state.totals,
        rounds_skipped=state.totals.rounds_skipped + round_lost,
        stages_skipped=state.totals.stages_skipped + 1,
    )
    state = replace(state, totals=totals, last_skip=reason)
    return state, (SkippedToRound(task.round, task.stage, state.round, state.stage, reason),)


def _trains(task: TrainerTask, round_number: int, stage: int | None) -> bool:
    return task.kind == "train" and task.round == round_number and stage in (None, task.stage)


def _span(state: State, stale: TrainerTask | None, round_number: int, stage: int) -> str:
    """Return the name of the stages that were missed before (round_number, stage)."""
    stages = state.parameters.stages
    here = step_number(state.round, state.stage, stages)
    first = here if unfinished(state, stale) else max(here + 1, state.peers.get(state.me, 0) * stages)
    last = step_number(round_number, stage, stages) - 1
    if first >= last:
        return stage_label(state, *divmod(first, stages))
    if stages == 1:
        return f"rounds {first} to {last}"
    return f"{stage_label(state, *divmod(first, stages))} to {stage_label(state, *divmod(last, stages))}"
