"""Who wins a round: the mean of recomputed rewards on a peer's own questions, never a sum."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocols.identifiers import Address


class Score(msgspec.Struct, frozen=True, array_like=True):
    """What one node measured of a peer in a round: accepted groups and the sum of their mean rewards."""

    peer: Address
    groups: int
    reward: float

    @property
    def mean(self) -> float:
        """Mean reward per group, 0.0 where there is none."""
        return self.reward / self.groups if self.groups else 0.0


def winners(scores: Iterable[Score], me: Address, most: int, minimum_groups: int) -> tuple[Address, ...]:
    """Return at most `most` peers by mean reward, ties by address; never `me`, never a reward of zero.

    The result is in ascending order of address, the canonical form that is committed to and sent.
    """
    able = [score for score in scores if score.peer != me and score.groups >= minimum_groups and score.reward > 0]
    best = sorted(able, key=lambda score: (-score.mean, score.peer))[:most]
    return tuple(sorted(score.peer for score in best))
