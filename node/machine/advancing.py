"""Opening the next stage: each node waits for its turn after the deadline, and retries until the stage has advanced."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from node.machine.commands import AdvanceStage, SetTimer
from node.machine.memo import remembered
from node.machine.pacing import local_deadline, local_pause_end, stage_seconds
from node.machine.state import Result, State
from protocols.identifiers import Address, Seed
from protocols.schedule import MAX_RELAYERS, turn_delay, turn_order

SLACK = 0.05
"""Seconds by which a timer may fire early and still count."""
MOST_TURNS = 16
"""A node whose transaction does not go through waits at most this many turns between two attempts."""
RECOVERY = 0.4
"""Share of a stage that is left for waiting messages if the chain comes back after the deadline. Advancing at once
would close the window of votes that could not be submitted meanwhile."""


def turn_time(state: State) -> float:
    """Return the local time at which it is this node's turn to advance the current stage.

    Peers that announced lately that they can pay come first. Keys that are only registered must not make the others
    wait for turns that nobody takes.
    """
    order = _order(state.peers, state.relayers, state.me if state.relays else "", state.seed, state.round, state.stage)
    begins = max(local_deadline(state), local_pause_end(state))
    if state.resumed:
        begins = max(begins, state.resumed + RECOVERY * stage_seconds(state))
    return begins + turn_delay(state.me, order, state.parameters.turn_seconds)


@remembered
def _order(
    registered: dict[Address, int], relayers: Mapping[Address, object], me: Address, seed: Seed, number: int, stage: int
) -> tuple[Address, ...]:
    """Return the first turns of those that count, peers that can pay before others; all further ones share one turn.

    `me` is this node where it relays, else empty.
    """
    peers = {peer for peer, since in registered.items() if since <= number}
    able = peers & {*relayers, me}
    order = (*turn_order(able, seed, number, stage), *turn_order(peers - able, seed, number, stage))
    return order[:MAX_RELAYERS]


def set_advance_timer(state: State, at: float) -> Result:
    """Set the timer for this node's turn; under doppelganger protection it has none."""
    if state.round < 0 or state.doppelganger_watch is not None:
        return state, ()
    return state, (SetTimer("advance", turn_time(state)),)


def advance_timer(state: State, at: float) -> Result:
    """Advance if it is this node's turn and the stage is still open; a timer of an earlier stage is set again.

    Without the chain nothing is tried: the timer is set again when the chain is back.
    """
    if state.round < 0 or state.doppelganger_watch is not None:
        return state, ()
    due = turn_time(state)
    if at + SLACK < due:
        return state, (SetTimer("advance", due),)
    if state.chain != "present":
        return replace(state, overdue=state.chain == "absent"), ()
    again = SetTimer("advance", at + state.parameters.turn_seconds * min(2**state.advance_tries, MOST_TURNS))
    state = replace(state, advance_tries=min(state.advance_tries + 1, MOST_TURNS))
    return state, (AdvanceStage(state.round, state.stage), again)
