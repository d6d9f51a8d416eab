"""The contract opened a stage: what is left behind, what begins."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine.advancing import wait_for_turn
from node.machine.commands import AbortWork, AnyCommand, StopNode
from node.machine.doppelganger import keep_listening
from node.machine.peer_score import forgive
from node.machine.relaying import stage_began, wait_for_relay
from node.machine.skipping import leave_for
from node.machine.state import MAX_FORKED, Result, State, Work, begun, current_step, in_turn, label, own_body, with_body
from node.machine.voting import move_votes, reopened
from node.machine.work import pursue, round_done, wait_for_rollouts
from protocols.identifiers import Seed
from protocols.schedule import step_number
from protocols.wire import NOTHING

AHEAD = 2
"""Rounds beyond the current one whose bodies are remembered after a reorg went back: they may open again."""

Opening = tuple[int, int, Seed, int, bool]
"""Round, stage, seed, deadline in chain seconds, rewound."""


def open_stage(state: State, opening: Opening, at: float) -> Result:
    """Go to the stage that the contract is in. What was known already changes nothing; older news is passed over."""
    round_number, stage, seed, deadline, rewound = opening
    forward = step_number(round_number, stage, state.terms.stages) - current_step(state)
    reseeded = state.seeds.get(round_number, seed) != seed
    if state.round < 0:
        return _enter(state, opening, at)
    if forward == 0 and not reseeded:
        return _same_stage(state, deadline, at)
    if rewound or (reseeded and forward <= 0):
        return in_turn(state, at, lambda s, t: _leave_fork(s, opening), lambda s, t: _enter(s, opening, t))
    if forward < 0:
        return state, ()
    return in_turn(
        state, at, lambda s, t: leave_for(s, round_number, stage, t), lambda s, t: _enter(s, opening, t)
    )  # fmt: skip


def _same_stage(state: State, deadline: int, at: float) -> Result:
    state, _ = keep_listening(replace(state, gap=""), at)
    if deadline == state.deadline:
        return state, ()
    return in_turn(replace(state, deadline=deadline), at, wait_for_turn, wait_for_relay, wait_for_rollouts, pursue)


def _leave_fork(state: State, opening: Opening) -> Result:
    """Drop work on a stage that a reorg undid. Nothing counts as missed: the stage did not happen."""
    round_number, stage = opening[:2]
    commands: tuple[AnyCommand, ...] = ()
    task = state.task
    if task is not None and task.kind in ("generate", "train"):
        reason = f"a reorg led from {label(state, state.round, state.stage)} to {label(state, round_number, stage)}"
        commands = (AbortWork(task.round, task.stage, reason),)
        state = replace(state, task=None)
    return replace(state, gap=""), commands


def _enter(state: State, opening: Opening, at: float) -> Result:
    """Begin a stage: votes first, since they need the round that has just ended; then this node's own work."""
    round_number, stage, seed, deadline, rewound = opening
    if round_number > state.round:
        state = forgive(round_done(state), round_number - max(0, state.round))
    if state.seeds.get(round_number, seed) != seed:
        state = _without_round(state, round_number)
    state = replace(
        state,
        round=round_number,
        stage=stage,
        seed=seed,
        deadline=deadline,
        seeds={**state.seeds, round_number: seed},
        overdue=False,
        resumed=0.0,
        advance_tries=0,
    )
    state = _as_announced(_pruned(state))
    state = stage_began(replace(state, work=_resumed(state)))
    if rewound:
        state = reopened(state)
    if state.draining:
        state, commands = move_votes(state, at)
        return replace(state, stopping=True), (*commands, StopNode(0, "drained"))
    waits = (wait_for_turn, wait_for_relay, wait_for_rollouts)
    return in_turn(state, at, keep_listening, move_votes, *waits, pursue)


def _without_round(state: State, round_number: int) -> State:
    """Forget the bodies of a round that has another seed now: they answer questions that nobody was asked."""
    stages = state.terms.stages
    gone = {step: pool for step, pool in state.pools.items() if step >= step_number(round_number, 0, stages)}
    own = (
        (step, state.seeds.get(step // stages, b""), pool[state.me]) for step, pool in gone.items() if state.me in pool
    )
    pools = {step: pool for step, pool in state.pools.items() if step not in gone}
    return replace(state, pools=pools, forked=(*state.forked, *own)[-MAX_FORKED:])


def _as_announced(state: State) -> State:
    """Return the state with what this node announced under this very seed before reorgs led away and back again."""
    step = current_step(state)
    said = [body for where, seed, body in state.forked if (where, seed) == (step, state.seed)]
    return with_body(state, step, state.me, said[0]) if said and own_body(state) is None else state


def _resumed(state: State) -> Work:
    """Return the work of the stage: anew, or where it was left when a reorg leads to the same stage again.

    Rollouts that were published once are not made again: a second body for the same stage is an equivocation. Nor are
    any made where this node has said that it made none.
    """
    body = own_body(state)
    if body is None:
        return begun("stage opened")
    if body.digest == NOTHING:
        return begun("stage opened again, nothing made")
    return begun("stage opened again, trained" if body.used else "stage opened again, published")


def _pruned(state: State) -> State:
    """Forget rounds that can't count any more. The round before is kept for the votes and for late training.

    Of one more round the seed is kept: where a round has one stage, votes on it are revealed two rounds later.
    """
    oldest = state.round - max(1, state.terms.rounds_kept)
    newest = state.round + AHEAD
    stages = state.terms.stages
    seeds = {number: seed for number, seed in state.seeds.items() if min(oldest, state.round - 2) <= number <= newest}
    pools = {step: pool for step, pool in state.pools.items() if oldest <= step // stages <= newest}
    return replace(state, seeds=seeds, pools=pools)
