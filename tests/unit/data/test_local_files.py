"""Questions from local files: JSON lines and Parquet, one file or a directory in the hub's layout."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from node.data.load import load_questions
from node.data.local_files import split_files
from node.data.questions import Questions
from protocols.manifest import DataSpec

SPEC = DataSpec(source="jsonl:questions.jsonl", question="q", answer="a")
CHAT = DataSpec(source="parquet:x", question="prompt", answer="reward_model.ground_truth")


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Sequence[Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra [data]")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=7)
    return path


def simple(count: int) -> list[dict[str, str]]:
    return [{"q": f"how much is {n}?", "a": f"#### {n}"} for n in range(count)]


def chats(count: int) -> list[dict[str, Any]]:
    return [
        {
            "data_source": "math",
            "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": f" How much is {n}? "}],
            "reward_model": {"style": "rule", "ground_truth": str(n)},
        }
        for n in range(count)
    ]


def read(path: Path, spec: DataSpec = SPEC, grader: str = "") -> Questions:
    return load_questions(spec, str(path), grader)


def everything(questions: Questions) -> set[tuple[str, str]]:
    trained = [questions[index] for index in range(len(questions))]
    return {(each.text, each.answer) for each in [*trained, *questions.held_out(10_000)]}


def test_a_file_is_split_by_its_questions(tmp_path: Path) -> None:
    """No held-out question is a training question, about a tenth is held out, and the split is stable."""
    first, second = (read(write(tmp_path / name, simple(300))) for name in ("a.jsonl", "b.jsonl"))

    held = {record.text for record in first.held_out(300)}

    assert 10 < len(held) < 60
    assert len(first) + len(held) == 300
    assert held.isdisjoint(first[index].text for index in range(len(first)))
    assert first.digest == second.digest


def test_a_directory_brings_its_own_split(tmp_path: Path) -> None:
    """`train.jsonl` is for training, `test.jsonl` is held out; a bare number is an answer, too."""
    write(tmp_path / "train.jsonl", [{"q": "?", "a": n} for n in range(5)])
    write(tmp_path / "test.jsonl", simple(3))

    questions = read(tmp_path)

    assert (len(questions), len(questions.held_out(2)), questions[4].answer) == (5, 2, "4")


def test_parquet_and_json_lines_of_the_same_records_have_one_digest(tmp_path: Path) -> None:
    """The format does not matter: the digest is over questions and answers."""
    lines = read(write(tmp_path / "a.jsonl", simple(100)))
    columns = read(write_parquet(tmp_path / "a.parquet", simple(100)))

    assert lines.digest == columns.digest
    assert everything(lines) == everything(columns)


def test_nested_columns_and_chats_are_read_in_both_formats(tmp_path: Path) -> None:
    """Of a prompt in chat form the user's last message is the question; a dotted column goes into a nested one."""
    for path in (write(tmp_path / "a.jsonl", chats(40)), write_parquet(tmp_path / "a.parquet", chats(40))):
        assert everything(read(path, CHAT)) == {(f"How much is {n}?", str(n)) for n in range(40)}


def test_shards_are_read_in_their_order(tmp_path: Path) -> None:
    """A split in several files of a config's directory is one split; other configs and splits stay out."""
    rows = simple(30)
    for shard in range(3):
        write_parquet(tmp_path / "en" / f"train-0000{shard}-of-00003.parquet", rows[10 * shard :][:10])
    write(tmp_path / "en" / "test-00000-of-00001.jsonl", [{"q": "held out", "a": "1"}])
    write(tmp_path / "cn" / "train.jsonl", [{"q": "other", "a": "1"}])

    questions = read(tmp_path, DataSpec(source="parquet:x", config="en", question="q", answer="a"))

    assert [questions[index].answer for index in range(30)] == [row["a"] for row in rows]
    assert [each.text for each in questions.held_out(9)] == ["held out"]


@pytest.mark.parametrize(
    ("names", "spec", "found"),
    [
        (("main/train-0.parquet", "main/test-0.parquet", "socratic/train-0.parquet"), DataSpec(config="main"),
         (["main/train-0.parquet"], ["main/test-0.parquet"])),
        (("data/train-0.parquet", "README.md", "data/validation-0.parquet"), DataSpec(),
         (["data/train-0.parquet"], [])),
        (("train.jsonl", "en/train.jsonl"), DataSpec(), (["train.jsonl"], [])),
        (("train.jsonl", "test.jsonl"), DataSpec(config="main"), (["train.jsonl"], ["test.jsonl"])),
        (("en/train-0.parquet", "test.jsonl"), DataSpec(config="en"), (["en/train-0.parquet"], [])),
        (("training.jsonl",), DataSpec(), ([], [])),
        (("a/validation.jsonl",), DataSpec(config="a", split="validation"), (["a/validation.jsonl"], [])),
    ],
)  # fmt: skip
def test_the_files_of_a_split_are_found_in_the_layouts_of_the_hub(
    names: Sequence[str], spec: DataSpec, found: tuple[list[str], list[str]]
) -> None:
    """The directory that has the training split decides; a held-out split elsewhere is another data set's."""
    assert split_files(names, spec) == found


def test_what_can_not_be_used_is_named_with_file_and_line(tmp_path: Path) -> None:
    """Each mistake in a data file is one line that says where it is and what to set."""
    path = tmp_path / "broken.jsonl"
    for line, said in (
        ('{"q": "x"}', r":1: no column 'a': no 'a' among \['q'\]; set data.answer"),
        ('{"q": null, "a": "1"}', ":1: the column 'q' has no text"),
        ('{"q": "%s", "a": "1"}' % ("x" * 70_000), ":1: 70000 characters in the column 'q'"),
        ("[1]", ":1: not a JSON object"),
        ("", "the training split is empty"),
        ('{"q": "x", "a": "1"}', "the held-out split is empty"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(ValueError, match=said):
            read(path)


def test_a_missing_nested_column_is_named_by_its_part(tmp_path: Path) -> None:
    """The complaint names what is missing and what is there instead."""
    path = write_parquet(tmp_path / "a.parquet", [{"prompt": "x", "reward_model": {"truth": "1"}}])

    with pytest.raises(ValueError, match=r"a\.parquet:1: no column .*: no 'ground_truth' among"):
        read(path, CHAT)


@pytest.mark.parametrize("name", ["questions.jsonl", "questions.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """In words, whatever its format."""
    pytest.importorskip("pyarrow", reason="Parquet needs the extra [data]")
    with pytest.raises(ValueError, match=rf"{name}: .*No such file or directory$"):
        load_questions(SPEC, str(tmp_path / name))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    """Whatever lies under the name, the error says which file it is."""
    path = write_parquet(tmp_path / "a.parquet", simple(3))
    path.write_bytes(path.read_bytes()[:-9])

    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file"):
        read(path)


def test_a_directory_without_the_split_says_what_it_has(tmp_path: Path) -> None:
    """The splits that are there help to correct data.split."""
    write(tmp_path / "en" / "validation.jsonl", simple(1))

    with pytest.raises(ValueError, match=r"no file of split 'train'; there are en/validation; set data.split"):
        read(tmp_path)


def test_another_copy_is_refused_by_its_digest(tmp_path: Path) -> None:
    """One changed answer is another data set."""
    path = write(tmp_path / "a.jsonl", simple(50))
    good = DataSpec(source="jsonl:a", question="q", answer="a", digest=read(path).digest.hex())
    assert len(read(path, good)) > 0

    write(path, [*simple(49), {"q": "how much is 49?", "a": "#### 50"}])
    with pytest.raises(ValueError, match=f"the manifest names {good.digest[:16]}"):
        read(path, good)


def test_an_answer_that_the_grader_can_not_grade_is_found_at_start(tmp_path: Path) -> None:
    """A swarm whose grader needs numbers refuses a text; the one for texts takes it."""
    path = write(tmp_path / "a.jsonl", [*simple(30), {"q": "which?", "a": "the second"}])

    with pytest.raises(ValueError, match="final-number/1 can't grade the answer 'the second'"):
        read(path, grader="final-number/1")
    assert len(read(path, grader="math/1")) > 20


def test_an_unknown_source_lists_the_known_ones() -> None:
    """A typo in data.source is answered with what there is."""
    with pytest.raises(ValueError, match=r"'json:x' is unknown; use one of builtin:arithmetic, hub:"):
        load_questions(DataSpec(source="json:x"))
