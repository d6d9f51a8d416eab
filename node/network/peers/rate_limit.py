"""Rate limiter of gossip: a leaky bucket of useless messages and one of bytes for each connected peer.

Who exceeds a limit is not heard for a while. Load alone is no fault: nobody is penalised for it.
"""

from __future__ import annotations

import msgspec
from cachetools import FIFOCache

MAX_PEERS = 1024


class RateLimit(msgspec.Struct, frozen=True):
    """Useless messages and bytes that may come at once (`burst`), and how many more each second."""

    burst_messages: int
    burst_bytes: int
    messages: float
    bytes: float


TRUSTED_LIMIT = RateLimit(4096, 64 << 20, 200.0, 4 << 20)
"""For a peer with a positive score: bytes enough for the announcements of a hundred thousand nodes at once."""
UNTRUSTED_LIMIT = RateLimit(1024, 16 << 20, 50.0, 1 << 20)
"""For every other peer, as all are at first: a quarter of that."""


class UsedAllowance(msgspec.Struct, frozen=True):
    """What a peer has used of its limit, as of a time in seconds."""

    messages: float = 0.0
    bytes: float = 0.0
    at: float = 0.0


def charge(used: UsedAllowance, limit: RateLimit, messages: int, size: int, now: float) -> tuple[UsedAllowance, bool]:
    """Return what is used after a frame, and whether the frame is within the limit; one that is not costs nothing."""
    passed = max(0.0, now - used.at)
    before = UsedAllowance(
        max(0.0, used.messages - passed * limit.messages), max(0.0, used.bytes - passed * limit.bytes), now
    )
    after = UsedAllowance(before.messages + messages, before.bytes + size, now)
    within = after.messages <= limit.burst_messages and after.bytes <= limit.burst_bytes
    return (after, True) if within else (before, False)


class RateLimiter:
    """What each connected peer has used; those silent for longest are forgotten first."""

    def __init__(self) -> None:
        self._used: FIFOCache[str, UsedAllowance] = FIFOCache(MAX_PEERS)

    def allows(self, peer: str, size: int, now: float, *, trusted: bool) -> bool:
        """Return True if a frame of so many bytes is within a peer's limit; it is counted then."""
        return self._charge(peer, 0, size, now, trusted=trusted)

    def hears(self, peer: str, now: float, *, trusted: bool) -> bool:
        """Return True if a peer may forward one more message: it has not brought too many useless ones."""
        _, within = charge(self._used.get(peer, UsedAllowance(at=now)), _limit(trusted), 1, 0, now)
        return within

    def count_useless(self, peer: str, now: float, *, trusted: bool) -> None:
        """Count a message that turned out to be useless."""
        self._charge(peer, 1, 0, now, trusted=trusted)

    def _charge(self, peer: str, messages: int, size: int, now: float, *, trusted: bool) -> bool:
        used = self._used.get(peer, UsedAllowance(at=now))
        self._used[peer], within = charge(used, _limit(trusted), messages, size, now)
        return within


def _limit(trusted: bool) -> RateLimit:
    return TRUSTED_LIMIT if trusted else UNTRUSTED_LIMIT
