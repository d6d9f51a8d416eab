"""Who wins a round: the mean of recomputed rewards on a peer's own questions, never a sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from protocols.identifiers import Address


class Score(msgspec.Struct, frozen=True, array_like=True):
    """One node's measurement of a peer in a round: accepted groups and the sum of their mean rewards."""

    peer: Address
    groups: int
    reward: float

    @property
    def mean(self) -> float:
        """Mean reward per group, 0.0 without groups."""
        return self.reward / self.groups if self.groups else 0.0


def round_score(peer: Address, stages: Sequence[tuple[int, float]]) -> Score:
    """Return a peer's score of a round from the groups and summed mean rewards of each stage.

    It is the mean of the stages' means. A stage that was not played counts as zero, so that no peer gains by playing
    only the stages that pay best.
    """
    groups = sum(count for count, _ in stages)
    if len(stages) == 1:
        return Score(peer, groups, stages[0][1])
    mean = sum(reward / count for count, reward in stages if count) / max(1, len(stages))
    return Score(peer, groups, mean * groups)


def ranked(scores: Iterable[Score], me: Address, minimum_groups: int) -> tuple[Score, ...]:
    """Return the scores that can win, best first: by mean reward, ties by address; never `me`, never a reward of 0."""
    able = [score for score in scores if score.peer != me and score.groups >= minimum_groups and score.reward > 0]
    return tuple(sorted(able, key=lambda score: (-score.mean, score.peer)))


def winners(scores: Iterable[Score], me: Address, most: int, minimum_groups: int) -> tuple[Address, ...]:
    """Return the first `most` peers of the ranking.

    The result is in ascending order of address: the canonical form that is committed to and sent.
    """
    return tuple(sorted(score.peer for score in ranked(scores, me, minimum_groups)[:most]))
