"""A round on held-out questions, played by a scripted model with itself."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from node.data.questions import Question
from node.trainer.engines.sampler import Sample
from node.trainer.worker.self_play import StageWorth, play_stages
from node.trainer.worker.session import TaskContext
from protocols.manifest import Manifest
from tests.support.debate_tables import debate

TASK = TaskContext(lambda: False, lambda done, total: None)
QUESTIONS = [Question(f"twice {number}?", f"#### {2 * number}") for number in range(1, 5)]

Script = Callable[[str, int], str]
"""What a part of the model (its number) replies to a prompt."""


class Scripted:
    """An engine whose replies are written down; it keeps the prompts."""

    fingerprint = bytes(32)

    def __init__(self, script: Script) -> None:
        self._script = script
        self.prompts: list[str] = []

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def sample(
        self, prompts: Sequence[str], count: int, rng: torch.Generator, cancelled: Callable[[], bool], **how: object
    ) -> list[list[Sample]]:
        self.prompts += prompts
        return [
            [Sample([1], [0.0], self._script(prompt, part), finished=True) for part in range(count)]
            for prompt in prompts
        ]


def manifest() -> Manifest:
    return debate(quoted=2, critique="C {question}|{answers}", resolve="R {question}|{answers}|{criticisms}")


def asked(prompt: str) -> int:
    """Return what is right for the question in a prompt."""
    return 2 * int(prompt.split("twice ")[1].split("?")[0])


def reply(prompt: str, part: int) -> str:
    """The first part answers rightly, the second wrongly; both find the right answer, and take it over."""
    right = f"#### {asked(prompt)}"
    number = 1 if f"Answer 1: {right}\n" in prompt else 2
    if prompt.startswith("C "):
        return f"Best answer: {number}"
    if prompt.startswith("R "):
        return f"Majority: {number}\n{right}"
    return right if part == 0 else "#### 1"


def test_later_stages_quote_what_the_model_said_before() -> None:
    """Half of the first answers are right, every critic picks the right one, every final answer is right."""
    engine: Any = Scripted(reply)
    assert play_stages(engine, manifest(), QUESTIONS, TASK) == (
        StageWorth(0.5, 0.5),
        StageWorth(1.0, None),
        StageWorth(1.0, 1.0),
    )
    assert all("Answer 2:" in prompt for prompt in engine.prompts[len(QUESTIONS) :])
    assert all(prompt.count("Critic:") == 2 for prompt in engine.prompts[2 * len(QUESTIONS) :])


@pytest.mark.parametrize("questions", [[], QUESTIONS[:1]])
def test_few_questions_are_no_fault(questions: list[Question]) -> None:
    """One question, or none, is played like many."""
    engine: Any = Scripted(reply)
    assert [worth.reward for worth in play_stages(engine, manifest(), questions, TASK)] == (
        [0.5, 1.0, 1.0] if questions else [0.0, 0.0, 0.0]
    )
