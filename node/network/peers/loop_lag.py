"""How late this node's own event loop is: whoever is late itself can't tell whether others are. Pure."""

from __future__ import annotations

from collections import deque

BEAT_SECONDS = 0.25
"""How often the loop is asked."""
WINDOW_SECONDS = 15.0
"""How long a late beat counts: a pong that is late now was asked for up to two pings ago."""
LATE_SECONDS = 0.5
"""Lateness from which this node blames nobody for being slow, and opens no further connections."""


class LoopLag:
    """The largest lateness of the loop in the last seconds. Times are in seconds, of any one clock."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque()

    def beat(self, late: float, now: float) -> None:
        """Note that a beat came so many seconds late; smaller ones than those that still count need no place."""
        while self._late and self._late[-1][1] <= late:
            self._late.pop()
        self._late.append((now, late))

    def seconds(self, now: float) -> float:
        """Return the largest lateness of the last `WINDOW_SECONDS`."""
        while self._late and self._late[0][0] < now - WINDOW_SECONDS:
            self._late.popleft()
        return self._late[0][1] if self._late else 0.0

    def is_late(self, now: float) -> bool:
        """Return True if the loop was late by more than an idle machine's jitter."""
        return self.seconds(now) > LATE_SECONDS
