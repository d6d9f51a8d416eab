"""What a data set is to the rest of the node: questions by index, held-out ones apart. Pure."""

from __future__ import annotations

from typing import Protocol

import msgspec

from protocols.identifiers import Digest


class Question(msgspec.Struct, frozen=True):
    """One question and its reference answer."""

    text: str
    answer: str


class Questions(Protocol):
    """A data set: training questions by index, held-out ones apart."""

    digest: Digest

    def __len__(self) -> int:
        """Return the number of training questions."""

    def __getitem__(self, index: int) -> Question:
        """Return a training question."""

    def held_out(self, count: int) -> list[Question]:
        """Return `count` held-out questions (fewer where there are fewer), always the same ones."""
