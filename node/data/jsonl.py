"""Questions from JSON lines: GSM8K's format and anything like it, with a column mapping."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from node.data.records import records_digest
from node.seams import Question
from protocols.grading import reference_number
from protocols.manifest import DataSpec

_HELD_OUT_SHARE = 10


class JsonlQuestions:
    """A file, split by a hash of the question's text; or a directory with `train.jsonl` and `test.jsonl`.

    Raises ValueError naming file and line for a record that can't be used or an empty split, OSError where a file
    can't be read.
    """

    def __init__(self, path: Path, spec: DataSpec) -> None:
        if path.is_dir():
            self._train = list(_records(path / "train.jsonl", spec))
            self._test = list(_records(path / "test.jsonl", spec))
        else:
            found = list(_records(path, spec))
            self._train = [record for record in found if not _is_held_out(record)]
            self._test = [record for record in found if _is_held_out(record)]
        for split, records in (("training", self._train), ("held-out", self._test)):
            if not records:
                raise ValueError(f"{path}: the {split} split is empty; a data set needs about ten questions or more")
        self.digest = records_digest(self._train)

    def __len__(self) -> int:
        return len(self._train)

    def __getitem__(self, index: int) -> Question:
        return self._train[index]

    def held_out(self, count: int) -> list[Question]:
        """Return the first `count` held-out questions, fewer where there are fewer."""
        return self._test[:count]


def _is_held_out(record: Question) -> bool:
    return zlib.crc32(record.text.encode()) % _HELD_OUT_SHARE == 0


def _records(path: Path, spec: DataSpec) -> Iterator[Question]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _question(f"{path}:{number}", line, spec)


def _question(place: str, line: bytes, spec: DataSpec) -> Question:
    try:
        record: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"{place}: not a JSON object: {error}; each line holds one record") from error
    missing = [column for column in (spec.question, spec.answer) if column not in record]
    if missing:
        raise ValueError(f"{place}: no column {missing[0]!r} among {sorted(record)}; set data.question or data.answer")
    found = Question(str(record[spec.question]).strip(), str(record[spec.answer]).strip())
    if reference_number(found.answer) is None:
        raise ValueError(f"{place}: the answer {found.answer[-40:]!r} ends in no number that can be graded")
    return found
