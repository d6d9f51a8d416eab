"""What peers wrote on the questions that everybody has, kept for a few stages to be compared with what comes next."""

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
"""Bodies of one stage that are compared with each other: as many as the machine asks for."""
NGRAMS_COMPARED = 8_192
"""N-grams of a body from which on no further question of it is compared: with groups of 8, at least 4 questions are."""
NGRAMS_KEPT = 1 << 19
"""N-grams of one stage: about 40 MiB. Beyond it the richest bodies are forgotten first, so that nobody can have others
forgotten by writing more than they do."""

Place = tuple[int, int, Seed]
"""Round, stage and seed."""


class ComparedBody(msgspec.Struct, frozen=True):
    """What is kept of a body, and how many n-grams that are."""

    body: Mapping[int, Written]
    ngrams: int


class CopyDetector:
    """Remembers sketches, not texts, of a bounded number of bodies. After a restart it begins anew: then copies of what
    came before are not noticed. This node's own bodies may be added while another thread compares."""

    def __init__(self) -> None:
        self._stages: FIFOCache[Place, dict[Address, ComparedBody]] = FIFOCache(STAGES_KEPT)
        self._lock = Lock()

    def alike(self, peer: Address, said: Announcement, body: Mapping[int, Written]) -> tuple[Address, ...]:
        """Return the other peers whose body of the stage this one repeats, and remember it."""
        if not body:
            return ()
        with self._lock:
            others = self._stages.setdefault((said.round, said.stage, said.seed), {})
            known = [(other, theirs.body) for other, theirs in others.items() if other != peer]
            if len(others) < PEERS_KEPT or peer in others:
                others[peer] = ComparedBody(body, ngrams(body))
            _forget_richest(others)
        return tuple(other for other, theirs in known if is_copy(_pairs(theirs, body)))


def _forget_richest(bodies: dict[Address, ComparedBody]) -> None:
    """Forget bodies until the others are few enough n-grams: the richest first, of equals the newest."""
    while sum(kept.ngrams for kept in bodies.values()) > NGRAMS_KEPT:
        del bodies[max(reversed(bodies), key=lambda peer: bodies[peer].ngrams)]


def _pairs(one: Mapping[int, Written], other: Mapping[int, Written]) -> list[tuple[Written, Written]]:
    return [(one[question], other[question]) for question in one if question in other]
