"""Tasks of reasoning-gym."""

import json
import sys

import pytest

from node.data.load import load_questions
from node.grading.gym_grader import gym_grader
from protocols.manifest import DataSpec


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)

    with pytest.raises(ValueError, match=r"install swarm-node\[gym\]"):
        load_questions(DataSpec(source="reasoning-gym:leg_counting"))


def test_a_task_makes_the_same_questions_from_the_same_parameters() -> None:
    """Seed and size decide; each reference answer is worth 1, anything else less, and unknown tasks are refused."""
    pytest.importorskip("reasoning_gym", reason="needs the extra [gym]")
    spec = DataSpec(source="reasoning-gym:chain_sum", parameters={"seed": 3, "size": 60})
    questions, again = load_questions(spec), load_questions(spec)
    grade = gym_grader()
    question = questions[5]
    right = json.loads(question.answer)["answer"]

    assert questions.digest == again.digest
    assert len(questions) + len(questions.held_out(60)) <= 60
    assert grade(f"so <answer>1</answer>, no: <answer>{right}</answer>", question.answer) == 1.0
    assert grade(f"<answer>{right}1</answer>", question.answer) < 1.0
    assert grade(right, question.answer) == 0.0
    with pytest.raises(ValueError, match=r"reasoning-gym:nothing .* correct data.source"):
        load_questions(DataSpec(source="reasoning-gym:nothing"))
