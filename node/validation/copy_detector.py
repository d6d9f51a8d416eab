"""Sketches of peers' completions of common questions, kept for a few stages for comparison with later bodies."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import msgspec
from cachetools import FIFOCache

from protocols.copies import Written, is_copy, ngrams
from protocols.identifiers import Address, Seed
from protocols.wire import Announcement

STAGES_KEPT = 8
PEERS_KEPT = 256
"""Bodies of one stage that are compared with each other: as many as the machine fetches."""
NGRAMS_COMPARED = 8_192
"""N-grams of a body after which no further question is compared; with groups of 8, at least 4 questions fit."""
NGRAMS_KEPT = 1 << 19
"""N-grams kept of one stage: about 40 MiB. Above it the largest bodies are forgotten first, so that nobody can evict
others' bodies by writing more than they do."""

Place = tuple[int, int, Seed]
"""Round, stage and seed."""


class ComparedBody(msgspec.Struct, frozen=True):
    """The sketches kept of a body, and their number of n-grams."""

    body: Mapping[int, Written]
    ngrams: int


class CopyDetector:
    """Remembers sketches, not texts, of a bounded number of bodies. A restart empties it: copies of earlier bodies are
    then not noticed. This node's own bodies may be added while another thread compares."""

    def __init__(self) -> None:
        self._stages: FIFOCache[Place, dict[Address, ComparedBody]] = FIFOCache(STAGES_KEPT)
        self._lock = Lock()

    def alike(self, peer: Address, announcement: Announcement, body: Mapping[int, Written]) -> tuple[Address, ...]:
        """Return the other peers whose body of the stage this one repeats, and remember it."""
        if not body:
            return ()
        with self._lock:
            others = self._stages.setdefault((announcement.round, announcement.stage, announcement.seed), {})
            known = [(other, theirs.body) for other, theirs in others.items() if other != peer]
            if len(others) < PEERS_KEPT or peer in others:
                others[peer] = ComparedBody(body, ngrams(body))
            _forget_largest(others)
        return tuple(other for other, theirs in known if is_copy(_pairs(theirs, body)))


def _forget_largest(bodies: dict[Address, ComparedBody]) -> None:
    """Forget bodies until the rest has few enough n-grams: the largest first, the newest of equals."""
    while sum(kept.ngrams for kept in bodies.values()) > NGRAMS_KEPT:
        del bodies[max(reversed(bodies), key=lambda peer: bodies[peer].ngrams)]


def _pairs(one: Mapping[int, Written], other: Mapping[int, Written]) -> list[tuple[Written, Written]]:
    return [(one[question], other[question]) for question in one if question in other]
