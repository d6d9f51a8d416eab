"""The organiser's pause: the contract accepts nothing meanwhile and moves the deadline. Training and gossip
continue."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.advancing import SLACK, set_advance_timer
from node.machine.commands import SetTimer
from node.machine.pacing import local_pause_end
from node.machine.relaying import set_relay_timer
from node.machine.state import Result, State, apply_transitions
from node.machine.work import schedule_next_task, set_rollouts_timer


def pause_changed(state: State, changed: i.PauseChanged, at: float) -> Result:
    """Note until when the swarm is paused; move the deadline and every timer that depends on it."""
    before = state
    state = replace(state, paused_until=changed.until)
    if local_pause_end(state) <= at:
        state = replace(state, paused_until=0)
    if (changed.round, changed.stage) == (state.round, state.stage):
        state = replace(state, deadline=changed.deadline)
    if state == before:
        return state, ()
    return apply_transitions(
        state, at, set_pause_timer, set_advance_timer, set_relay_timer, set_rollouts_timer, schedule_next_task
    )


def set_pause_timer(state: State, at: float) -> Result:
    """Set the timer for the end of the pause, if there is one."""
    return (state, (SetTimer("pause", local_pause_end(state)),)) if state.paused_until else (state, ())


def pause_timer(state: State, at: float) -> Result:
    """Forget a pause that has lapsed; if it was extended, or the clock's offset has changed, wait longer."""
    if at + SLACK < local_pause_end(state):
        return set_pause_timer(state, at)
    return replace(state, paused_until=0), ()
