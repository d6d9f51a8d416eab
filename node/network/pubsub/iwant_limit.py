"""IWANT retransmission limit: what a peer gets of the messages that it asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Protocol

MAX_IWANT_IDS = 4096
"""Ids of one request that are looked at."""
GOSSIP_RETRANSMISSION = 3
"""How often a message is sent to the same peer by IWANT: GossipSub 1.1's parameter of this name."""


class Sized(Protocol):
    """The part of a protobuf message that is needed here."""

    def ByteSize(self) -> int:  # noqa: N802 - the library's name
        """Return the encoded size in bytes."""


class IwantLimit:
    """How often each peer was sent what it asked for, as long as the message is cached."""

    def __init__(self) -> None:
        self._sent: Counter[tuple[object, bytes]] = Counter()

    def select(self, peer: object, ids: Iterable[bytes], messages: Mapping[bytes, Sized], room: int) -> list[bytes]:
        """Return the ids of the messages that a peer gets, of at most `room` bytes together; they count as sent."""
        selected = []
        for each in dict.fromkeys(ids):
            if each not in messages or self._sent[peer, each] >= GOSSIP_RETRANSMISSION:
                continue
            room -= messages[each].ByteSize()
            if room < 0:
                break
            self._sent[peer, each] += 1
            selected.append(each)
        return selected

    def forget(self, cached: Container[bytes]) -> None:
        """Forget what was sent of messages that are no longer cached."""
        self._sent = Counter({key: times for key, times in self._sent.items() if key[1] in cached})
