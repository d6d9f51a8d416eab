"""The grader "reasoning-gym/1": the task that generated a question scores the text between the last answer tags."""

from __future__ import annotations

import re

from node.data.gym import MISSING, gym_task, recipe_of
from protocols.grading import Grader

LONGEST = 1024
_ANSWERS = re.compile(r"<answer>(.{0,1024}?)</answer>", re.DOTALL)


def gym_grader() -> Grader:
    """Return the grader, to be run in a killable process. Raises ValueError if the package is missing."""
    try:
        import reasoning_gym  # type: ignore[import-not-found, unused-ignore]  # noqa: F401 - loaded before the forks
    except ImportError as error:
        raise ValueError(MISSING) from error

    def grade(completion: str, answer: str) -> float:
        given = _ANSWERS.findall(completion)
        if not given:
            return 0.0
        recipe = recipe_of(answer)
        task = gym_task(recipe.task, recipe.parameters)
        return float(task.score_answer(given[-1].strip(), task[recipe.index]))

    return grade
