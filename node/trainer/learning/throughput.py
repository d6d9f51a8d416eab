"""How much of an update fits into the seconds that are left: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from node.trainer.engines.engine import TrainingGroup

SMOOTHING = 0.5
"""Weight of the last measurement (exponential moving average)."""

SAFETY_MARGIN = 1.15
"""What an update may take beyond its estimate."""

FORWARD_COST = 1 / 3
"""What a token costs that only the off-policy filter sees, of one that is trained on: a forward pass, no backward."""

STALE_DECAY = 0.5
"""What is left of an estimate by which nothing could be started."""


class ThroughputEstimate(msgspec.Struct, frozen=True):
    """The estimate of seconds per token, 0 before anything was measured.

    `stale` is True if nothing was measured since the last time that nothing fitted.
    """

    seconds_per_token: float = 0.0
    stale: bool = False

    def updated(self, seconds: float, tokens: float) -> ThroughputEstimate:
        """Return the estimate after another measurement."""
        if not tokens:
            return self
        measured, before = seconds / tokens, self.seconds_per_token
        return ThroughputEstimate((1 - SMOOTHING) * before + SMOOTHING * measured if before else measured)

    def decayed(self) -> ThroughputEstimate:
        """Return the estimate after one more time that nothing fitted by it.

        Once is no reason to doubt it, at the end of a training. Again and again means that the machine was slow for a
        while: with that estimate nothing would be measured any more.
        """
        return ThroughputEstimate(self.seconds_per_token * (STALE_DECAY if self.stale else 1.0), stale=True)


def affordable(
    groups: Sequence[TrainingGroup],
    cost: Callable[[TrainingGroup], float],
    seconds_per_token: float,
    seconds: float,
) -> list[TrainingGroup]:
    """Return the groups, from the front, that an update gets through in `seconds`.

    All of them while nothing has been measured.
    """
    kept: list[TrainingGroup] = []
    needed = 0.0
    for group in groups:
        needed += cost(group) * seconds_per_token * SAFETY_MARGIN
        if needed > seconds:
            break
        kept.append(group)
    return kept
