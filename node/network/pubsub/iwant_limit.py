"""What a peer gets of the messages that it wants: each once, again a few times at most, and no more than one frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Protocol

MOST_WANTED = 4096
"""Ids of one request that are looked at."""
MOST_SENT = 3
"""How often a peer is sent the same message because it wants it: GossipSub 1.1's GossipRetransmission."""


class Sized(Protocol):
    """The part of a protobuf message that is needed here."""

    def ByteSize(self) -> int:  # noqa: N802 - the library's name
        """Return the encoded size in bytes."""


class IwantLimit:
    """How often each peer has been sent what it wanted, as long as the message is at hand."""

    def __init__(self) -> None:
        self._sent: Counter[tuple[object, bytes]] = Counter()

    def take(self, peer: object, ids: Iterable[bytes], messages: Mapping[bytes, Sized], room: int) -> list[bytes]:
        """Return which of the wanted messages a peer gets, of at most `room` bytes together, and count them as sent."""
        taken = []
        for each in dict.fromkeys(ids):
            if each not in messages or self._sent[peer, each] >= MOST_SENT:
                continue
            room -= messages[each].ByteSize()
            if room < 0:
                break
            self._sent[peer, each] += 1
            taken.append(each)
        return taken

    def forget(self, messages: Container[bytes]) -> None:
        """Forget what was sent of messages that are no longer at hand."""
        self._sent = Counter({key: times for key, times in self._sent.items() if key[1] in messages})
