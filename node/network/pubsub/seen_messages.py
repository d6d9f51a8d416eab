"""Ids of messages that were seen, bounded by number."""

from __future__ import annotations

from cachetools import FIFOCache


class SeenMessages:
    """In place of the library's cache, which is bounded by time only and starts a thread."""

    def __init__(self, limit: int) -> None:
        self._ids: FIFOCache[bytes, None] = FIFOCache(limit)

    def has(self, message: bytes) -> bool:
        """Return True if the id was added and not pushed out by newer ones since."""
        return message in self._ids

    def add(self, message: bytes) -> bool:
        """Remember an id; return True if it is new."""
        if message in self._ids:
            return False
        self._ids[message] = None
        return True

    def stop(self) -> None:
        """Do nothing: there is no thread to stop."""
