"""How much of an update fits into the seconds that are left: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from node.trainer.engine import TrainingGroup

RECENT = 0.5
"""Weight of the last measurement."""

RESERVE = 1.15
"""What an update may take beyond its estimate."""


def learned(before: float, seconds: float, tokens: int) -> float:
    """Return the estimate of seconds per token after another measurement; 0 before the first is no estimate."""
    if not tokens:
        return before
    measured = seconds / tokens
    return (1 - RECENT) * before + RECENT * measured if before else measured


def affordable(
    groups: Sequence[TrainingGroup], cost: Callable[[TrainingGroup], int], each: float, seconds: float
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
