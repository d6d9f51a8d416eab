"""Lots: in which order peers get the places of a stage where there are more peers than places."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from protocols.identifiers import Address, Seed

OWNER_PLACES = 8
"""Places of a stage that an owner's keys get before any owner gets more."""


@lru_cache(maxsize=8192)
def lot(seed: Seed, peer: Address) -> bytes:
    """Return a peer's lot in a round: the lowest ones get the places."""
    return hashlib.blake2b(seed + bytes.fromhex(peer[2:]), digest_size=8, person=b"swarm-place").digest()


def by_lot(peers: Iterable[Address], owners: Mapping[Address, Address], seed: Seed) -> list[Address]:
    """Return peers in the order in which they get places: `OWNER_PLACES` of each owner, then as many again, by lot."""
    drawn = sorted(peers, key=lambda peer: lot(seed, peer))
    turns, counts = {}, Counter[Address]()
    for peer in drawn:
        owner = owners.get(peer) or peer
        turns[peer] = counts[owner] // OWNER_PLACES
        counts[owner] += 1
    return sorted(drawn, key=lambda peer: turns[peer])
