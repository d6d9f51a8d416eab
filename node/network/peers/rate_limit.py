"""How much a connected peer may send by gossip: so many messages and bytes at once, and so many a second after that."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

MOST_PEERS = 1024


class RateLimit(msgspec.Struct, frozen=True):
    """Messages and bytes that may come at once (`burst`), and what is added each second."""

    burst_messages: int
    burst_bytes: int
    messages: float
    bytes: float


KNOWN = RateLimit(4096, 64 << 20, 200.0, 4 << 20)
"""For a peer with credit: the announcements of four thousand nodes when a stage opens, each sent once."""
STRANGER = RateLimit(1024, 16 << 20, 50.0, 1 << 20)
"""For one without, as everybody is at first: a quarter of that."""


class UsedAllowance(msgspec.Struct, frozen=True):
    """What a peer has used of its quota, as of a time in seconds."""

    messages: float = 0.0
    bytes: float = 0.0
    at: float = 0.0


def spend(spent: UsedAllowance, quota: RateLimit, messages: int, size: int, now: float) -> tuple[UsedAllowance, bool]:
    """Return what is used after a frame came, and whether that is still within the quota; what is not costs nothing."""
    passed = max(0.0, now - spent.at)
    before = UsedAllowance(
        max(0.0, spent.messages - passed * quota.messages), max(0.0, spent.bytes - passed * quota.bytes), now
    )
    after = UsedAllowance(before.messages + messages, before.bytes + size, now)
    within = after.messages <= quota.burst_messages and after.bytes <= quota.burst_bytes
    return (after, True) if within else (before, False)


class RateLimiter:
    """What each connected peer has used; those not heard for longest are forgotten first."""

    def __init__(self) -> None:
        self._spent: OrderedDict[str, UsedAllowance] = OrderedDict()

    def takes(self, peer: str, messages: int, size: int, now: float, *, known: bool) -> bool:
        """Tell whether a frame with so many messages and bytes is within a peer's quota, and count it if so."""
        quota = KNOWN if known else STRANGER
        self._spent[peer], within = spend(self._spent.pop(peer, UsedAllowance(at=now)), quota, messages, size, now)
        if len(self._spent) > MOST_PEERS:
            self._spent.popitem(last=False)
        return within
