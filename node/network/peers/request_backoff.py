"""Request back-off: a peer that times out again and again is not asked for a while.

A ban would outlast the load by far, and a swarm on busy machines would ban itself apart. A peer that hangs on purpose
costs requests that wait until their deadline; with every back-off they become rarer.
"""

from __future__ import annotations

from typing import NamedTuple

from cachetools import FIFOCache

from node.backoff import Backoff

SAME_INCIDENT_SECONDS = 10.0
"""Requests that time out within this time count once."""
TOLERATED_TIMEOUTS = 3
"""Timeouts in a row without consequence."""
BACKOFF = Backoff(first=1.0, longest=30.0)
"""After the timeouts that are tolerated."""
MAX_BACKOFFS = 1024


class Slowness(NamedTuple):
    """How often a peer timed out in a row, when last, and until when it is backing off. Times in seconds."""

    times: int
    at: float
    until: float


class RequestBackoff:
    """Peers that timed out. After some times each backs off, twice as long with every timeout, until it answers."""

    def __init__(self) -> None:
        self._slow: FIFOCache[str, Slowness] = FIFOCache(MAX_BACKOFFS)

    def is_backing_off(self, peer: str, now: float) -> bool:
        """Return True if a peer is not to be asked at the moment."""
        return peer in self._slow and self._slow[peer].until > now

    def record_timeout(self, peer: str, now: float) -> None:
        """Note that a peer did not answer in time."""
        before = self._slow.get(peer)
        if before is not None and now < max(before.at + SAME_INCIDENT_SECONDS, before.until):
            return
        times = before.times + 1 if before else 1
        self._slow[peer] = Slowness(times, now, now + backoff_after(times))

    def record_answer(self, peer: str) -> None:
        """Forget a peer's timeouts."""
        self._slow.pop(peer, None)


def backoff_after(timeouts: int) -> float:
    """Return the seconds of back-off after so many timeouts in a row."""
    return BACKOFF.pause(timeouts - TOLERATED_TIMEOUTS)
