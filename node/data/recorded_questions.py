"""The canonical form of a data set's records, the digest over them that a manifest names, and the held-out rule."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from node.data.questions import Question
from protocols.identifiers import Digest

HELD_OUT_SHARE = 10
"""One question in this many is held out if the source has no such split."""


def records_digest(records: Iterable[Question]) -> Digest:
    """Return the 32-byte BLAKE2b digest over the records in order, each as a line of JSON: [question, answer]."""
    digest = hashlib.blake2b(digest_size=32)
    for record in records:
        digest.update(msgspec.json.encode([record.text, record.answer]) + b"\n")
    return digest.digest()


def is_held_out(record: Question) -> bool:
    """Return True if a question is held out by the rule that depends only on its text."""
    return zlib.crc32(record.text.encode()) % HELD_OUT_SHARE == 0


class RecordedQuestions:
    """`Questions` from records. Without `test`, about a tenth of them is held out (`is_held_out`).

    Raises ValueError, beginning with `place`, for an empty split.
    """

    def __init__(self, place: str, train: Sequence[Question], test: Sequence[Question] | None = None) -> None:
        if test is None:
            train, test = (
                [each for each in train if not is_held_out(each)],
                [each for each in train if is_held_out(each)],
            )
        self._train, self._test = train, test
        for split, records in (("training", self._train), ("held-out", self._test)):
            if not records:
                raise ValueError(f"{place}: the {split} split is empty; a data set needs about ten questions or more")
        self.digest = records_digest(self._train)

    def __len__(self) -> int:
        return len(self._train)

    def __getitem__(self, index: int) -> Question:
        return self._train[index]

    def held_out(self, count: int) -> list[Question]:
        """Return the first `count` held-out questions, or all if there are fewer."""
        return list(self._test[:count])
