"""Concurrency limit of answers: how many this node writes at a time, and how many of them to one peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class AnswerLimiter:
    """At most `total` answers at a time, and `per_peer` for each peer."""

    def __init__(self, total: int, per_peer: int) -> None:
        self._total, self._per_peer = total, per_peer
        self._running: Counter[str] = Counter()

    @contextmanager
    def acquire(self, peer: str) -> Iterator[bool]:
        """Give True if an answer may be written; it counts until the block ends."""
        if self._running.total() >= self._total or self._running[peer] >= self._per_peer:
            yield False
            return
        self._running[peer] += 1
        try:
            yield True
        finally:
            self._running[peer] -= 1
            self._running += Counter()
