"""Upload quota: how many bytes this node serves to each peer, and to all of them together."""

from __future__ import annotations

from cachetools import FIFOCache

from node.network.peers.rate_limit import RateLimit, UsedAllowance, charge

PEER_BURST, PEER_RATE = 64 << 20, 2 << 20
"""Bytes that one peer may draw at once, and each second after that: a stage's 256 bodies of a quarter of a megabyte."""
TOTAL_BURST_SECONDS = 16.0
"""The burst of all peers together, in seconds of the configured rate."""
MAX_PEERS = 1024


class UploadQuota:
    """`rate` bytes a second go to all peers together, of bodies and of answers to catch-up."""

    def __init__(self, rate: float) -> None:
        burst = int(rate * TOTAL_BURST_SECONDS)
        self._peer_limit = RateLimit(0, PEER_BURST, 0.0, float(PEER_RATE))
        self._total_limit = RateLimit(0, burst, 0.0, rate)
        self._used: FIFOCache[str, UsedAllowance] = FIFOCache(MAX_PEERS)
        self._total = UsedAllowance()

    def allows(self, peer: str, size: int, now: float) -> bool:
        """Return True if so many bytes may go to a peer now; they are counted then. `now` in seconds."""
        used, within_own = charge(self._used.get(peer, UsedAllowance(at=now)), self._peer_limit, 0, size, now)
        total, within_total = charge(self._total, self._total_limit, 0, size, now)
        if within_own and within_total:
            self._used[peer], self._total = used, total
        return within_own and within_total
