"""The contract opened a stage: what is left behind, what begins."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.advancing import set_advance_timer
from node.machine.commands import AbortWork, AnyCommand, StopNode
from node.machine.doppelganger import watch_for_doppelganger
from node.machine.peer_score import decay_scores
from node.machine.relaying import reset_message_pool, set_relay_timer
from node.machine.skipping import skip_to_stage
from node.machine.state import (
    MAX_REORGED_BODIES,
    ContractStage,
    Result,
    State,
    Work,
    apply_transitions,
    begun,
    current_step,
    own_body,
    stage_label,
    with_body,
)
from node.machine.voting import advance_votes, reopen_votes
from node.machine.work import round_done, schedule_next_task, set_rollouts_timer
from protocols.schedule import step_number
from protocols.wire import NOTHING

AHEAD = 2
"""Rounds beyond the current one whose bodies are kept after a reorg led back: they may open again."""
STAGE_TIMERS = (set_advance_timer, set_relay_timer, set_rollouts_timer)


def open_stage(state: State, opened: ContractStage, at: float) -> Result:
    """Go to the stage that the contract is in. A stage that is known already, or older, changes nothing."""
    forward = step_number(*opened.place, state.parameters.stages) - current_step(state)
    has_new_seed = state.seeds.get(opened.round, opened.seed) != opened.seed
    if state.round < 0:
        return _enter(state, opened, at)
    if forward == 0 and not has_new_seed:
        return _same_stage(state, opened.deadline, at)
    if opened.rewound or (has_new_seed and forward <= 0):
        return apply_transitions(
            state, at, lambda s, t: _leave_reorged_stage(s, opened), lambda s, t: _enter(s, opened, t)
        )  # fmt: skip
    if forward < 0:
        return state, ()
    return apply_transitions(
        state, at, lambda s, t: skip_to_stage(s, *opened.place, t), lambda s, t: _enter(s, opened, t)
    )  # fmt: skip


def _same_stage(state: State, deadline: int, at: float) -> Result:
    state, _ = watch_for_doppelganger(replace(state, gap_reason=""), at)
    if deadline == state.deadline:
        return state, ()
    state = replace(state, deadline=deadline)
    return apply_transitions(state, at, *STAGE_TIMERS, schedule_next_task)


def _leave_reorged_stage(state: State, opened: ContractStage) -> Result:
    """Drop work on a stage that a reorg undid. Nothing counts as missed: the stage did not happen."""
    commands: tuple[AnyCommand, ...] = ()
    task = state.task
    if task is not None and task.kind in ("generate", "train"):
        here, there = stage_label(state, state.round, state.stage), stage_label(state, *opened.place)
        commands = (AbortWork(task.round, task.stage, f"a reorg led from {here} to {there}"),)
        state = replace(state, task=None)
    return replace(state, gap_reason=""), commands


def _enter(state: State, opened: ContractStage, at: float) -> Result:
    """Begin a stage: votes first, since they need the round that has just ended; then this node's own work."""
    if opened.round > state.round:
        state = decay_scores(round_done(state), opened.round - max(0, state.round))
    if state.seeds.get(opened.round, opened.seed) != opened.seed:
        state = _without_round(state, opened.round)
    state = replace(
        state,
        round=opened.round,
        stage=opened.stage,
        seed=opened.seed,
        deadline=opened.deadline,
        seeds={**state.seeds, opened.round: opened.seed},
        overdue=False,
        resumed=0.0,
        advance_tries=0,
    )
    state = _with_reorged_body(_pruned(state))
    state = reset_message_pool(replace(state, work=_opened_work(state)))
    if opened.rewound:
        state = reopen_votes(state)
    if state.draining:
        state, commands = advance_votes(state, at)
        return replace(state, stopping=True), (*commands, StopNode(0, "drained"))
    return apply_transitions(state, at, watch_for_doppelganger, advance_votes, *STAGE_TIMERS, schedule_next_task)


def _without_round(state: State, round_number: int) -> State:
    """Forget the bodies of a round that has another seed now: they answer other questions."""
    stages = state.parameters.stages
    gone = {
        step: bodies for step, bodies in state.bodies_by_step.items() if step >= step_number(round_number, 0, stages)
    }
    own = (
        (step, state.seeds.get(step // stages, b""), bodies[state.me])
        for step, bodies in gone.items()
        if state.me in bodies
    )
    bodies_by_step = {step: bodies for step, bodies in state.bodies_by_step.items() if step not in gone}
    return replace(
        state, bodies_by_step=bodies_by_step, reorged_bodies=(*state.reorged_bodies, *own)[-MAX_REORGED_BODIES:]
    )


def _with_reorged_body(state: State) -> State:
    """Return the state with the body that this node announced under the same seed, before reorgs led away and back."""
    step = current_step(state)
    found = [body for where, seed, body in state.reorged_bodies if (where, seed) == (step, state.seed)]
    return with_body(state, step, state.me, found[0]) if found and own_body(state) is None else state


def _opened_work(state: State) -> Work:
    """Return the work of the stage: from the beginning, or where it was left if a reorg leads to the same stage again.

    Published rollouts are not made again: a second body for one stage is an equivocation. Nor are any made after an
    announcement without rollouts.
    """
    body = own_body(state)
    if body is None:
        return begun("stage opened")
    if body.digest == NOTHING:
        return begun("stage opened again, nothing made")
    return begun("stage opened again, trained" if body.used else "stage opened again, published")


def _pruned(state: State) -> State:
    """Forget rounds that no longer count. The last round is kept for votes and for late training.

    The seed of one more round is kept: if a round has one stage, votes on it are revealed two rounds later.
    """
    oldest = state.round - max(1, state.parameters.rounds_kept)
    newest = state.round + AHEAD
    stages = state.parameters.stages
    seeds = {number: seed for number, seed in state.seeds.items() if min(oldest, state.round - 2) <= number <= newest}
    bodies_by_step = {
        step: bodies for step, bodies in state.bodies_by_step.items() if oldest <= step // stages <= newest
    }
    return replace(state, seeds=seeds, bodies_by_step=bodies_by_step)
