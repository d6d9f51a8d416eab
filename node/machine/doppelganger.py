"""Doppelganger protection: a restored or copied identity waits before it acts, since another node may have its key.

The protected node takes part in nothing from its start until one whole round has passed in which a doppelganger could
have been detected. A message under its own signature proves a doppelganger only if it is bound to the seed of a round
that began during the protection: anybody can replay an older message, but nobody could have used that seed before.

Source: doppelganger protection of the Ethereum consensus clients.
"""

from __future__ import annotations

from msgspec.structs import replace

from node.exits import Exit
from node.machine.commands import EndDoppelgangerProtection, StopNode
from node.machine.inputs import DoppelgangerDetected
from node.machine.state import DoppelgangerWatch, Result, State
from protocols.identifiers import Seed

SEEDS_KEPT = 8
"""Rounds of the protection whose seeds are remembered: a doppelganger's message may arrive late."""


def watch_after(
    watch: DoppelgangerWatch, round_number: int, seed: Seed, is_reachable: bool
) -> DoppelgangerWatch | None:
    """Return the watch once the contract is in a round; None if it was long enough.

    `is_reachable`: a doppelganger could be detected now. The round in which the protection began does not count, nor
    does one without a connection, nor one whose end was missed.
    """
    if watch.round < 0:
        return DoppelgangerWatch(round_number, was_reachable=is_reachable)
    if round_number == watch.round:
        return replace(watch, was_reachable=watch.was_reachable or is_reachable)
    if round_number == watch.round + 1 and watch.new_seeds and watch.was_reachable:
        return None
    new_seeds = (*watch.new_seeds, seed)[-SEEDS_KEPT:] if round_number > watch.round else ()
    return DoppelgangerWatch(round_number, new_seeds, is_reachable)


def is_doppelganger(watch: DoppelgangerWatch, seed: Seed) -> bool:
    """Return True if a message of this node's key, bound to `seed`, can only come from another node."""
    return seed in watch.new_seeds


def watch_for_doppelganger(state: State, at: float) -> Result:
    """Note the contract's round; end the protection if it was long enough."""
    if state.doppelganger_watch is None:
        return state, ()
    watch = watch_after(state.doppelganger_watch, state.round, state.seed, is_reachable(state))
    return replace(state, doppelganger_watch=watch), (EndDoppelgangerProtection(),) if watch is None else ()


def note_reachable(state: State) -> State:
    """Note that a doppelganger could be detected from now on, if that is so."""
    if state.doppelganger_watch is None or not is_reachable(state):
        return state
    return replace(state, doppelganger_watch=replace(state.doppelganger_watch, was_reachable=True))


def is_reachable(state: State) -> bool:
    """Return True if a doppelganger's messages would arrive: a peer is connected, or no other is registered."""
    return state.connected > 0 or not any(peer != state.me for peer in state.peers)


def doppelganger_detected(state: State, detected: DoppelgangerDetected, at: float) -> Result:
    """Stop if another node signs with this key; a message that may be this node's own changes nothing."""
    if state.doppelganger_watch is None or not is_doppelganger(state.doppelganger_watch, detected.seed):
        return state, ()
    reason = (
        f"another node runs with this key: a message of {state.me} in round {detected.round} came from the network; "
        "stop that node, or give this one a key of its own (swarm keys new, in another data directory)"
    )
    return replace(state, stopping=True), (StopNode(int(Exit.DOPPELGANGER), reason),)
