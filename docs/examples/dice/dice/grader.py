"""The grader: `grader = "dice-distance/1"` in a manifest's section [game]."""

from __future__ import annotations

import re


def grade(completion: str, answer: str) -> float:
    """Return a reward in [0, 1]: 1 for the right sum, less the farther the last number is from it, 0 without a number.

    It runs in a process of its own with bounds on time and memory. Rewards must depend on the two texts only, and a
    change of them needs a new version in the name.
    """
    numbers = re.findall(r"[0-9]{1,6}", completion)
    return 1.0 / (1 + abs(int(numbers[-1]) - int(answer))) if numbers else 0.0
