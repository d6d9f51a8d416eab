"""The organiser's pause: the contract takes nothing meanwhile, and puts the deadline off. Training and gossip go on."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.advancing import SLACK, wait_for_turn
from node.machine.commands import SetTimer
from node.machine.pacing import local_pause_end
from node.machine.relaying import wait_for_relay
from node.machine.state import Result, State, in_turn
from node.machine.work import pursue, wait_for_rollouts


def pause_changed(state: State, changed: i.PauseChanged, at: float) -> Result:
    """Note until when the swarm is paused, and move the deadline with every timer that hangs on it."""
    before = state
    state = replace(state, paused_until=changed.until)
    if local_pause_end(state) <= at:
        state = replace(state, paused_until=0)
    if (changed.round, changed.stage) == (state.round, state.stage):
        state = replace(state, deadline=changed.deadline)
    if state == before:
        return state, ()
    return in_turn(state, at, wait_for_lapse, wait_for_turn, wait_for_relay, wait_for_rollouts, pursue)


def wait_for_lapse(state: State, at: float) -> Result:
    """Set the timer for the pause's end, where there is one."""
    return (state, (SetTimer("pause", local_pause_end(state)),)) if state.paused_until else (state, ())


def pause_timer(state: State, at: float) -> Result:
    """Forget a pause that has lapsed; where it was made longer, or the clock's offset has changed, wait on."""
    if at + SLACK < local_pause_end(state):
        return wait_for_lapse(state, at)
    return replace(state, paused_until=0), ()
