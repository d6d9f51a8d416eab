"""Bounds on answers: how many this node writes at a time, and how many of them to one peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class AnswerLimiter:
    """Answers under way, at most `at_once` in all and `per_peer` for each peer."""

    def __init__(self, at_once: int, per_peer: int) -> None:
        self._at_once, self._per_peer = at_once, per_peer
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def begin(self, peer: str) -> Iterator[bool]:
        """Tell whether an answer may begin; where it may, it is under way until the block ends."""
        if self._under_way.total() >= self._at_once or self._under_way[peer] >= self._per_peer:
            yield False
            return
        self._under_way[peer] += 1
        try:
            yield True
        finally:
            self._under_way[peer] -= 1
            self._under_way += Counter()
