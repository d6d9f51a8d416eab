"""What `swarm eval` measures of a model: what it prints as JSON, and the demo reads."""

from __future__ import annotations

import msgspec


class StageShare(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the game: mean reward, and the share of right answers where it asks for one."""

    name: str
    reward: float
    right: float | None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; `low` and `high` bound the accuracy at 95 %, `round` and `updates` are of a checkpoint.

    `stages` has the stages of the game, where they were asked for.
    """

    model: str
    data: str
    questions: int
    greedy: bool
    temperature: float
    accuracy: float
    low: float
    high: float
    seconds: float
    round: int | None = None
    updates: int | None = None
    stages: tuple[StageShare, ...] = ()
