"""The node's own life: start, restart, drain, stop; and its timers and network."""

from __future__ import annotations

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine.advancing import advance_timer, set_advance_timer
from node.machine.announcing import announce_own_rollouts, report_own_reward
from node.machine.commands import AnyCommand, SetTimer, StopNode
from node.machine.delegation import watch_delegation
from node.machine.doppelganger import note_reachable
from node.machine.external_bodies import refetch_bodies
from node.machine.joining import register_timer
from node.machine.pacing import local_deadline
from node.machine.pausing import pause_timer
from node.machine.relaying import relay_timer, sent_after
from node.machine.state import DoppelgangerWatch, Result, State, apply_transitions
from node.machine.voting import due_votes, resend_votes
from node.machine.work import (
    drop_task,
    quote_timer,
    schedule_next_task,
    set_rollouts_timer,
    to_be_saved,
    train_timer,
)


def node_started(state: State, started: i.NodeStarted, at: float) -> Result:
    """Ask again for whatever is not known to be done; the state of the services is unknown.

    The trainer's work follows when trainer and chain have reported: the stage may be over by now.
    """
    state, lost = drop_task(state, "cut off by a restart")
    state = replace(
        state,
        me=started.me or state.me,
        draining=False,
        stopping=False,
        doppelganger_watch=DoppelgangerWatch() if started.doppelganger_protection else None,
        chain="unknown",
        synced=False,
        pending=None,
        gap_reason="this node was stopped" if state.round >= 0 else "",
        connected=-1,
        trainer="unknown",
        task=None,
        registering=False,
        register_error="",
        relays=False,
        paused_until=0,
        expiry=0,
        renewal=0,
        ending="",
    )
    state, timers = apply_transitions(state, at, set_advance_timer, set_rollouts_timer)
    return state, (
        *lost,
        *announce_own_rollouts(state),
        *report_own_reward(state),
        *refetch_bodies(state),
        *resend_votes(state),
        *timers,
    )


def drain_requested(state: State, requested: i.DrainRequested, at: float) -> Result:
    """Finish the current stage, at the latest when it is over, then stop.

    What was learned is saved; messages that were left to relayers are sent now, votes among them.
    """
    if state.round < 0:
        return _stop(replace(state, draining=True), "drained")
    left_to_relayers = sent_after(state) > 0
    state = to_be_saved(replace(state, draining=True))
    own = (*due_votes(state), *report_own_reward(state)) if left_to_relayers else ()
    over = max(at, local_deadline(state)) + state.parameters.turn_seconds
    state, commands = schedule_next_task(state, at)
    return state, (*own, *commands) if state.stopping else (*own, *commands, SetTimer("drain", over))


def stop_requested(state: State, requested: i.StopRequested, at: float) -> Result:
    """Stop at once: the journal knows what to ask for at the next start."""
    return _stop(state, "stop requested")


def timer_fired(state: State, fired: i.TimerFired, at: float) -> Result:
    """Do what the timer was set for, if it is still needed."""
    match fired.name:
        case "advance":
            return advance_timer(state, at)
        case "train":
            return train_timer(state, at)
        case "quote":
            return quote_timer(state, at)
        case "relay":
            return relay_timer(state, at)
        case "delegation":
            return watch_delegation(state, at)
        case "pause":
            return pause_timer(state, at)
        case "register":
            return register_timer(state, at)
        case "drain" if state.draining:
            return _stop(state, "drained: the stage is over")
        case _:
            return state, ()


def network_changed(state: State, changed: i.NetworkChanged, at: float) -> Result:
    """When the network is back, announce again what peers may have missed, and fetch again what is missing here."""
    back = state.connected <= 0 < changed.connected
    state = note_reachable(replace(state, connected=max(0, changed.connected)))
    commands: tuple[AnyCommand, ...] = (*announce_own_rollouts(state), *refetch_bodies(state)) if back else ()
    return state, commands


def _stop(state: State, reason: str) -> Result:
    return replace(state, stopping=True), (StopNode(0, reason),)
