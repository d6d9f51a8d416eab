"""This node's own announcements: kept while their round is accepted, and which of them are still to be published."""

from __future__ import annotations

from collections.abc import Callable

from protocols.admission import Slot


class OwnAnnouncements:
    """Encoded announcements by slot. They outlive restarts of the network, which publishes all of them again."""

    def __init__(self) -> None:
        self._all: dict[Slot, bytes] = {}
        self._unsent: dict[Slot, bytes] = {}

    def add(self, slot: Slot, data: bytes) -> None:
        """Take an announcement that is to be published."""
        self._all[slot] = self._unsent[slot] = data

    def keep(self, is_current: Callable[[Slot], bool]) -> None:
        """Forget what is no longer accepted."""
        self._all = {slot: data for slot, data in self._all.items() if is_current(slot)}
        self._unsent = {slot: data for slot, data in self._unsent.items() if slot in self._all}

    def publish_again(self) -> None:
        """Mark all as unsent."""
        self._unsent = dict(self._all)

    def has_unsent(self) -> bool:
        """Return True if there is something to publish."""
        return bool(self._unsent)

    def next_unsent(self) -> bytes:
        """Return an announcement to publish; it counts as sent. Raises StopIteration where there is none."""
        return self._unsent.pop(next(iter(self._unsent)))

    def all(self) -> list[bytes]:
        """Return all that are kept."""
        return list(self._all.values())
