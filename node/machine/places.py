"""The places of a stage: which peers' bodies are kept where there are more than places. Pure.

Places go by lot, drawn by the round's seed, never by order of arrival: keys that announce first would otherwise take
all of them. An owner's first keys, by lot, come before everybody's further ones. So the same peers have places at every
node, as far as it has heard of them, and nobody knows before the seed which these are.
"""

from __future__ import annotations

from typing import NamedTuple

from node.machine.inputs import RolloutsAnnounced
from node.machine.peer_score import has_positive_score
from node.machine.state import MAX_BODIES, BodyRecord, State
from protocols.identifiers import Address, Seed
from protocols.lots import by_lot

MAX_UNKNOWN_PEERS, MAX_UNKNOWN_BYTES = 128, 128 << 20
"""Places and bytes of a stage for all peers without a positive score together. New identities cost nothing, so their
number must not keep out peers that have sent valid bodies."""


class Place(NamedTuple):
    """Whether there is a place, and who loses one for it."""

    free: bool
    displaced: tuple[Address, ...] = ()


NO_PLACE, FREE = Place(free=False), Place(free=True)


def place_for(state: State, announcement: RolloutsAnnounced, bodies: dict[Address, BodyRecord]) -> Place:
    """Return whether an announcement has a place among the bodies of its stage, and whom it displaces.

    The own body has a place of its own. A body that an update was made with stays.
    """
    seed = state.seeds[announcement.round]
    others = {peer: body for peer, body in bodies.items() if peer != state.me}
    displaced: list[Address] = []
    if not has_positive_score(state, announcement.peer):
        unknown = {peer: body for peer, body in others.items() if not has_positive_score(state, peer)}
        found = _room(state, announcement, unknown, MAX_UNKNOWN_PEERS, MAX_UNKNOWN_BYTES, seed)
        if not found.free:
            return NO_PLACE
        displaced += found.displaced
    left = {peer: body for peer, body in others.items() if peer not in displaced}
    found = _room(state, announcement, left, MAX_BODIES - 1, None, seed)
    return Place(found.free, (*displaced, *found.displaced)) if found.free else NO_PLACE


def _room(
    state: State,
    announcement: RolloutsAnnounced,
    bodies: dict[Address, BodyRecord],
    places: int,
    most_bytes: int | None,
    seed: Seed,
) -> Place:
    """Return whether an announcement fits beside `bodies`, once those with worse lots than its own have gone."""
    size = sum(body.size for body in bodies.values() if body.reason != "graylisted") + announcement.size

    def fits(gone: int, freed: int) -> bool:
        return len(bodies) - gone < places and (most_bytes is None or size - freed <= most_bytes)

    if fits(0, 0):
        return FREE
    order = by_lot((*bodies, announcement.peer), state.owners, seed)
    worse = [peer for peer in order[order.index(announcement.peer) + 1 :] if _may_go(bodies[peer])]
    gone: list[Address] = []
    freed = 0
    while worse and not fits(len(gone), freed):
        gone.append(worse.pop())
        freed += bodies[gone[-1]].size
    return Place(free=True, displaced=tuple(gone)) if fits(len(gone), freed) else NO_PLACE


def _may_go(body: BodyRecord) -> bool:
    """A refused body may go: its peer can announce no other one with a better lot."""
    return not body.used
