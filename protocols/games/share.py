"""The game `share` (SAPO, arXiv 2509.08721): one stage, own and foreign groups in each update."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from protocols.grading import grades
from protocols.manifest import GameSpec

GroupT = TypeVar("GroupT")


def prompt_text(game: GameSpec, question: str) -> str:
    """Return the whole prompt: worked examples (the prefix common to all questions), then the question."""
    return game.examples + question_text(game, question)


def question_text(game: GameSpec, question: str) -> str:
    """Return the part of the prompt that differs from question to question."""
    return game.prompt.replace("{question}", question)


def rewards(game: GameSpec, completions: Sequence[str], answer: str) -> tuple[float, ...]:
    """Return the reward of each completion in [0, 1], recomputed from the receiver's own reference answer."""
    return grades(game.grader, completions, answer)


def has_advantage(group_rewards: Sequence[float]) -> bool:
    """Tell whether a group teaches anything: its rewards are not all the same."""
    return max(group_rewards) - min(group_rewards) > 1e-9


def sample_groups(pool: Sequence[GroupT], count: int, rng: random.Random) -> list[GroupT]:
    """Return `count` groups of the pool, uniformly and without replacement; all of them where there are fewer."""
    return rng.sample(pool, min(count, len(pool)))
