"""When queued transactions are tried again. Pure; times in seconds of trio's clock."""

from __future__ import annotations

import math
from collections.abc import Iterable

from node.machine.transaction_keys import BaseKey

SOON, LATER = 0.5, 5.0
"""Seconds until a transaction is tried again: after a clock's skew, and after what only time or the operator mends."""


class RetrySchedule:
    """The times before which transactions are not tried. What is not deferred is due."""

    def __init__(self) -> None:
        self._due: dict[BaseKey, float] = {}
        self._left_to_relayers: set[BaseKey] = set()

    def is_due(self, key: BaseKey, now: float) -> bool:
        """Return True if a transaction may be tried now."""
        return self._due.get(key, 0.0) <= now

    def defer(self, key: BaseKey, until: float) -> None:
        """Try a transaction again at `until`, or with the next head if that is not much later."""
        self._due[key] = until

    def leave_to_relayers(self, key: BaseKey, until: float) -> None:
        """Look at a transaction again with the next head, and send it at `until`."""
        self._due[key] = until
        self._left_to_relayers.add(key)

    def forget(self, key: BaseKey) -> None:
        """Drop a settled transaction."""
        self._due.pop(key, None)
        self._left_to_relayers.discard(key)

    def new_head(self, now: float) -> None:
        """Make everything due that a new block may have changed: what waits for a moment, or for relayers."""
        soon = now + SOON
        self._due = {key: due for key, due in self._due.items() if due > soon and key not in self._left_to_relayers}
        self._left_to_relayers.clear()

    def retry_refused(self) -> None:
        """Make everything due that is not left to relayers: the contract may take now what it refused."""
        self._due = {key: due for key, due in self._due.items() if key in self._left_to_relayers}

    def seconds_left(self, keys: Iterable[BaseKey], now: float) -> float:
        """Return the seconds until the first of these transactions is due, infinity where there is none."""
        return max(0.0, min((self._due.get(key, 0.0) - now for key in keys), default=math.inf))
