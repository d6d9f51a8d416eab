"""The whole of GSM8K, where a copy lies beside the project (shared/data/gsm8k)."""

import time
from collections.abc import Callable

import pytest

from node.data.load import load_questions
from node.data.questions import Question
from protocols.grading import grades
from protocols.manifest_rules import parse_manifest
from tests.support.paths import ROOT

COPY = next((each / "shared/data/gsm8k" for each in ROOT.parents if (each / "shared/data/gsm8k").is_dir()), None)
pytestmark = pytest.mark.skipif(COPY is None, reason="no copy of GSM8K in ../shared/data/gsm8k")


def off_by_one(question: Question) -> str:
    head, number = question.answer.rsplit("####", 1)
    return f"{head}#### {int(number.replace(',', '')) + 1}"


@pytest.mark.parametrize("grader", ["final-number/1", "math/1"])
def test_every_reference_answer_is_right_and_the_same_off_by_one_is_wrong(
    grader: str, record_property: Callable[[str, object], None]
) -> None:
    """All 8,792 of them, in the set that configs/swarms/math.toml names by its digest, within seconds."""
    spec = parse_manifest((ROOT / "configs/swarms/math.toml").read_bytes()).data
    began = time.perf_counter()
    questions = load_questions(spec, str(COPY), grader)
    loaded = time.perf_counter()
    every = [*(questions[index] for index in range(len(questions))), *questions.held_out(2000)]

    wrong = [each for each in every if grades(grader, [each.answer, off_by_one(each)], each.answer) != (1.0, 0.0)]

    graded = time.perf_counter()
    record_property("seconds", {"load": loaded - began, "grade": graded - loaded})
    assert graded - began < 30
    assert (len(every), wrong) == (8792, [])
