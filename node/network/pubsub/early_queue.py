"""The early-message queue: announcements of the next stage wait here until the window moves."""

from __future__ import annotations

import msgspec
from cachetools import FIFOCache

from node.network.pubsub.inbound_message import InboundMessage
from protocols.admission import Slot

MAX_EARLY_REGISTERED, MAX_EARLY_UNREGISTERED, MAX_EARLY_PER_SLOT = 512, 64, 2


class EarlyMessageQueue:
    """Bounded, with a small part of its own for unregistered signers: keys cost nothing, so they must not push out
    what registered peers have sent."""

    def __init__(self) -> None:
        self._registered: FIFOCache[Slot, list[InboundMessage]] = FIFOCache(MAX_EARLY_REGISTERED)
        self._unregistered: FIFOCache[Slot, list[InboundMessage]] = FIFOCache(MAX_EARLY_UNREGISTERED)

    def add(self, slot: Slot, message: InboundMessage, *, registered: bool) -> bool:
        """Queue a message. Return False where its slot is full or it is queued already."""
        queue = self._registered if registered else self._unregistered
        # Nobody can check a seed before its round begins: a peer has one slot, whatever seed it names.
        waiting = queue.setdefault(msgspec.structs.replace(slot, seed=b""), [])
        if len(waiting) >= MAX_EARLY_PER_SLOT or any(other.data == message.data for other in waiting):
            return False
        waiting.append(message)
        return True

    def unregistered(self) -> int:
        """Return the number of slots of unregistered signers."""
        return len(self._unregistered)

    def drain(self) -> list[InboundMessage]:
        """Return all messages, those of registered signers first, and empty the queue."""
        waiting = [*self._registered.values(), *self._unregistered.values()]
        self._registered.clear()
        self._unregistered.clear()
        return [message for messages in waiting for message in messages]
