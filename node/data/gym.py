"""Tasks of the package reasoning-gym: questions generated from a seed, answers graded by the task itself.

A reference answer is the recipe of its question as JSON: a task needs more than the answer's text for its score
(metadata, rules), and generates the same question again from the same recipe.
"""

from __future__ import annotations

from typing import Any

import msgspec

from node.data.questions import Question
from node.data.recorded_questions import RecordedQuestions
from protocols.manifest import DataSpec

SCHEME = "reasoning-gym"
SIZE = 5000
MISSING = "reasoning-gym is not installed; install swarm-node[gym]"


class Recipe(msgspec.Struct, frozen=True):
    """How to generate a question again: the task, its parameters, the index in its sequence; and the task's answer."""

    task: str
    parameters: dict[str, int | float | str | bool]
    index: int
    answer: str


_recipes = msgspec.json.Decoder(Recipe)


def gym_questions(task: str, spec: DataSpec) -> RecordedQuestions:
    """Return the questions of a task: 5,000 from seed 0, or `size` and `seed` from the manifest's parameters.

    Raises ValueError for an unknown task or parameter, and if the package is missing.
    """
    parameters = {"seed": 0, "size": SIZE, **spec.parameters}
    made = gym_task(task, parameters)
    records: dict[str, Question] = {}
    for index in range(len(made)):
        entry = made[index]
        recipe = Recipe(task, parameters, index, str(entry["answer"]))
        question = str(entry["question"]).strip()
        records.setdefault(question, Question(question, msgspec.json.encode(recipe, order="sorted").decode()))
    return RecordedQuestions(f"{SCHEME}:{task}", list(records.values()))


def gym_task(task: str, parameters: dict[str, int | float | str | bool]) -> Any:
    """Return a task of reasoning-gym, a sequence of entries. Raises ValueError in one line."""
    try:
        import reasoning_gym  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ValueError(MISSING) from error
    try:
        return reasoning_gym.create_dataset(task, **parameters)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{SCHEME}:{task} with {parameters}: {error}; correct data.source or data.parameters"
        ) from error


def recipe_of(answer: str) -> Recipe:
    """Decode a reference answer into its recipe. Raises `msgspec.DecodeError`."""
    return _recipes.decode(answer)
