"""Ids of messages that were seen, bounded by number."""

from __future__ import annotations

from collections import OrderedDict


class SeenMessages:
    """In place of the library's cache, which is bounded by time only and starts a thread."""

    def __init__(self, limit: int) -> None:
        self._ids: OrderedDict[bytes, None] = OrderedDict()
        self._limit = limit

    def has(self, message: bytes) -> bool:
        """Return True if the id was added and not pushed out by newer ones since."""
        return message in self._ids

    def add(self, message: bytes) -> bool:
        """Remember an id; return True if it is new."""
        fresh = message not in self._ids
        self._ids[message] = None
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)
        return fresh

    def stop(self) -> None:
        """Do nothing: there is no thread to stop."""
