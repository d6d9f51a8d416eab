"""How much of an update fits into the seconds that are left: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from node.trainer.engines.engine import TrainingGroup

RECENT = 0.5
"""Weight of the last measurement."""

RESERVE = 1.15
"""What an update may take beyond its estimate."""

JUDGING = 1 / 3
"""What a token that is only judged costs, of one that is learnt from: a forward pass without the way back."""

DOUBT = 0.5
"""What is left of an estimate by which nothing could be begun."""


class ThroughputEstimate(msgspec.Struct, frozen=True):
    """The estimate of seconds per token, 0 before anything was measured.

    `stale` tells that nothing was measured since the last time that nothing fitted.
    """

    each: float = 0.0
    stale: bool = False

    def learned(self, seconds: float, tokens: float) -> ThroughputEstimate:
        """Return the estimate after another measurement."""
        if not tokens:
            return self
        measured = seconds / tokens
        return ThroughputEstimate((1 - RECENT) * self.each + RECENT * measured if self.each else measured)

    def doubted(self) -> ThroughputEstimate:
        """Return the estimate after one more time that nothing fitted by it.

        Once that may be, at the end of a training. Again and again it says that the machine was slow for a while: it
        would never be found to be quick again, were the estimate believed.
        """
        return ThroughputEstimate(self.each * DOUBT if self.stale else self.each, stale=True)


def affordable(
    groups: Sequence[TrainingGroup], cost: Callable[[TrainingGroup], float], each: float, seconds: float
) -> list[TrainingGroup]:
    """Return the groups, from the front, that an update at `each` seconds per token gets through in `seconds`.

    All of them while nothing has been measured.
    """
    kept: list[TrainingGroup] = []
    needed = 0.0
    for group in groups:
        needed += cost(group) * each * RESERVE
        if needed > seconds:
            break
        kept.append(group)
    return kept
