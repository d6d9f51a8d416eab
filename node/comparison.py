"""What peers wrote on the questions that everybody has, kept for a few stages to be compared with what comes next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from protocols.copies import Written, is_copy
from protocols.identifiers import Address, Seed
from protocols.wire import Announcement

STAGES_KEPT = 8
PEERS_KEPT = 256
"""Bodies of one stage that are compared with each other: as many as the machine asks for."""

Place = tuple[int, int, Seed]
"""Round, stage and seed."""


class Comparison:
    """Remembers sketches, not texts, of a bounded number of bodies. After a restart it begins anew: then copies of what
    came before are not noticed. This node's own bodies may be
    added while another thread compares."""

    def __init__(self) -> None:
        self._stages: OrderedDict[Place, dict[Address, Mapping[int, Written]]] = OrderedDict()

    def alike(self, peer: Address, said: Announcement, body: Mapping[int, Written]) -> tuple[Address, ...]:
        """Return the other peers whose body of the stage this one repeats, and remember it."""
        if not body:
            return ()
        others = self._stages.setdefault((said.round, said.stage, said.seed), {})
        known = [(other, theirs) for other, theirs in list(others.items()) if other != peer]
        found = tuple(other for other, theirs in known if is_copy(_pairs(theirs, body)))
        if len(others) < PEERS_KEPT or peer in others:
            others[peer] = body
        while len(self._stages) > STAGES_KEPT:
            self._stages.popitem(last=False)
        return found


def _pairs(one: Mapping[int, Written], other: Mapping[int, Written]) -> list[tuple[Written, Written]]:
    return [(one[question], other[question]) for question in one if question in other]
