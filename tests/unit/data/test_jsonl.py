"""Questions from JSON lines."""

from pathlib import Path

import pytest

from node.data.jsonl import JsonlQuestions
from protocols.manifest import DataSpec

SPEC = DataSpec(source="jsonl:questions.jsonl", question="q", answer="a")


def write(path: Path, lines: int, answer: str = '"#### {n}"') -> Path:
    path.write_text("".join(f'{{"q": "how much is {n}?", "a": {answer.format(n=n)}}}\n' for n in range(lines)))
    return path


def test_a_file_is_split_by_its_questions(tmp_path: Path) -> None:
    """No held-out question is a training question, about a tenth is held out, and the split is stable."""
    first, second = (JsonlQuestions(write(tmp_path / name, 300), SPEC) for name in ("a.jsonl", "b.jsonl"))

    held = {record.text for record in first.held_out(300)}

    assert 10 < len(held) < 60
    assert len(first) + len(held) == 300
    assert held.isdisjoint(first[index].text for index in range(len(first)))
    assert first.digest == second.digest


def test_a_directory_brings_its_own_split(tmp_path: Path) -> None:
    """`train.jsonl` is for training, `test.jsonl` is held out; a bare number is an answer, too."""
    write(tmp_path / "train.jsonl", 5, "{n}")
    write(tmp_path / "test.jsonl", 3, "{n}")

    questions = JsonlQuestions(tmp_path, SPEC)

    assert (len(questions), len(questions.held_out(2)), questions[4].answer) == (5, 2, "4")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"q": "x"}', r":1: no column 'a' among \['q'\]"),
        ("[1]", ":1: not a JSON object"),
        ('{"q": "x", "a": "some"}', ":1: the answer 'some' ends in no number"),
        ("", "split is empty"),
    ],
)
def test_what_can_not_be_used_is_named_with_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    """Each mistake in a data file is one line that says where it is."""
    path = tmp_path / "broken.jsonl"
    path.write_text(line + "\n")

    with pytest.raises(ValueError, match=said):
        JsonlQuestions(path, SPEC)
