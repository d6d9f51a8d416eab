"""A restored or copied identity listens before it acts: another node may be running with the same key.

It listens from the first round that begins while it does until the next one begins, and takes part in nothing.
Messages that it signed itself count where they are bound to the seed of a round that began while it listened: old ones
can be sent again by anybody, but a seed that nobody knew before can only have been used by a twin.
"""

from __future__ import annotations

from msgspec.structs import replace

from node.exits import Exit
from node.machine.commands import EndListening, StopNode
from node.machine.inputs import OwnMessageHeard
from node.machine.state import DoppelgangerWatch, Result, State
from protocols.identifiers import Seed

SEEDS_KEPT = 8
"""Rounds listened to of which the seeds are remembered: a twin's message may come late."""


def round_began(listening: DoppelgangerWatch, round_number: int, seed: Seed, reached: bool) -> DoppelgangerWatch | None:
    """Return how listening goes on when the contract is in a round; None where it has been long enough.

    `reached` tells whether a twin could be heard now. A round through which nobody could be heard does not count, nor
    one whose end was missed; the round during which listening began never does.
    """
    if listening.round < 0:
        return DoppelgangerWatch(round_number, reached=reached)
    if round_number == listening.round:
        return replace(listening, reached=listening.reached or reached)
    if round_number == listening.round + 1 and listening.fresh and listening.reached:
        return None
    fresh = (*listening.fresh, seed)[-SEEDS_KEPT:] if round_number > listening.round else ()
    return DoppelgangerWatch(round_number, fresh, reached)


def is_twin(listening: DoppelgangerWatch, seed: Seed) -> bool:
    """Tell whether a message of this node's own key, bound to `seed`, can only be somebody else's."""
    return seed in listening.fresh


def keep_listening(state: State, at: float) -> Result:
    """Note the round that the contract is in; end listening where it was long enough."""
    if state.listening is None:
        return state, ()
    listening = round_began(state.listening, state.round, state.seed, can_hear(state))
    return replace(state, listening=listening), (EndListening(),) if listening is None else ()


def network_back(state: State) -> State:
    """Note that a twin could be heard from now on."""
    if state.listening is None or not can_hear(state):
        return state
    return replace(state, listening=replace(state.listening, reached=True))


def can_hear(state: State) -> bool:
    """Tell whether a twin's messages would arrive: over somebody, unless there is nobody else at all."""
    return state.connected > 0 or not any(peer != state.me for peer in state.peers)


def own_message_heard(state: State, heard: OwnMessageHeard, at: float) -> Result:
    """Stop where another node speaks with this key."""
    if state.listening is None or not is_twin(state.listening, heard.seed):
        return state, ()
    reason = (
        f"another node runs with this key: {state.me} was heard in round {heard.round}; stop that one, or give this "
        "one a key of its own (swarm keys new, in another data directory)"
    )
    return replace(state, stopping=True), (StopNode(int(Exit.TWIN), reason),)
