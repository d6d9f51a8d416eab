"""RL Swarm's clock: when a stage ends and a round's seed, estimated from what its contract says. Pure.

A stage manager opens stages at will; there are no deadlines. The estimate of a stage's length is the median of those
before it. A round's seed is made from the hash of the block that opened it: whoever builds that block, or decides when
the round opens, can bias it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import msgspec

from node.machine.inputs import StageOpened
from protocols.identifiers import Address, Seed, keccak256

SEED_DOMAIN = b"swarm/rl-swarm/seed/1"

DURATIONS = 8
"""How many of the last stages the estimate is made from: two rounds and more of three stages."""


class StageOpening(msgspec.Struct, frozen=True):
    """A stage was opened in a block of chain time `at` (Unix seconds)."""

    round: int
    stage: int
    at: int
    block: int
    block_hash: bytes

    @property
    def place(self) -> tuple[int, int]:
        """Round and stage."""
        return self.round, self.stage


def round_seed(contract: Address, round_number: int, block_hash: bytes) -> Seed:
    """Return the seed of a round that was opened in the block with this hash: the same for every node."""
    return keccak256(SEED_DOMAIN + bytes.fromhex(contract[2:]) + round_number.to_bytes(32, "big") + block_hash)


def estimated_seconds(openings: Sequence[StageOpening], default: int) -> int:
    """Return how long the last stage of `openings` will last: the median of the stages before it, at least 1 s.

    `default` is returned while none was seen to end. One stage that lasted a day does not move the median.
    """
    times = [opening.at for opening in openings[-DURATIONS - 1 :]]
    durations = [after - before for before, after in pairwise(times)]
    return max(1, round(median(durations))) if durations else default


class RLSwarmClock:
    """The openings of stages, in order, as far back as seeds and estimates need them.

    `seconds` are the manifest's for each stage: what is assumed of a swarm that was never seen to advance.
    """

    def __init__(self, contract: Address, seconds: Sequence[int]) -> None:
        self._contract, self._seconds = contract, tuple(seconds)
        self._openings: list[StageOpening] = []
        self._first: dict[int, StageOpening] = {}

    def resume(self, openings: Sequence[StageOpening]) -> StageOpened | None:
        """Replace what is known by what was read; return the stage that it ends with."""
        self._openings, self._first = [], {}
        opened = None
        for opening in openings:
            opened = self.opened(opening)
        return opened

    def opened(self, opening: StageOpening) -> StageOpened | None:
        """Take an opening; return the input for it, None where it is known or the round's own opening is not."""
        if self._openings and opening.place <= self._openings[-1].place:
            return None
        self._openings.append(opening)
        if opening.stage == 0:
            self._first[opening.round] = opening
        self._prune()
        seed = self.seed_of(opening.round)
        if seed is None:
            return None
        default = self._seconds[min(opening.stage, len(self._seconds) - 1)]
        deadline = opening.at + estimated_seconds(self._openings, default)
        return StageOpened(opening.round, opening.stage, seed, deadline, opening.at, opening.block)

    def undone(self, round_number: int, stage: int) -> None:
        """Forget an opening that a reorg removed, and all after it."""
        self._openings = [known for known in self._openings if known.place < (round_number, stage)]
        self._first = {number: known for number, known in self._first.items() if known.place < (round_number, stage)}

    def seed_of(self, round_number: int) -> Seed | None:
        """Return the seed of a round whose opening is remembered."""
        first = self._first.get(round_number)
        return round_seed(self._contract, round_number, first.block_hash) if first else None

    def _prune(self) -> None:
        del self._openings[: -DURATIONS - 1]
        for old in sorted(self._first)[: -DURATIONS - 1]:
            del self._first[old]
