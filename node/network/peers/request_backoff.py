"""Who keeps this node waiting again and again is let be for a while: a machine that is busy is slow too, and no enemy.

A ban would outlast the load by far, and a swarm on busy machines would ban itself asunder. What a peer costs that hangs
on purpose, requests that wait until their deadline, gets rarer with every rest.
"""

from __future__ import annotations

from typing import NamedTuple

TOGETHER = 10.0
"""Seconds: requests that hang at the same time are one slowness."""
FORGIVEN = 3
"""How often in a row a peer may be slow without consequence."""
FIRST_REST, LONGEST_REST = 1.0, 30.0
MOST_SLOW = 1024


class Slowness(NamedTuple):
    """How often a peer was slow in a row, when last, and until when it rests."""

    times: int
    at: float
    until: float


class RequestBackoff:
    """Peers that were slow: after some times each rests, twice as long whenever it is slow again, until it answers."""

    def __init__(self) -> None:
        self._slow: dict[str, Slowness] = {}

    def rests(self, peer: str, now: float) -> bool:
        """Tell whether a peer is not to be asked at the moment."""
        return peer in self._slow and self._slow[peer].until > now

    def slow(self, peer: str, now: float) -> None:
        """Note that a peer did not answer in time."""
        before = self._slow.get(peer)
        if before is not None and now < max(before.at + TOGETHER, before.until):
            return
        times = before.times + 1 if before else 1
        rest = min(FIRST_REST * 2.0 ** (times - FORGIVEN - 1), LONGEST_REST) if times > FORGIVEN else 0.0
        self._slow.pop(peer, None)
        self._slow[peer] = Slowness(times, now, now + rest)
        if len(self._slow) > MOST_SLOW:
            del self._slow[next(iter(self._slow))]

    def answered(self, peer: str) -> None:
        """Forget that a peer was slow."""
        self._slow.pop(peer, None)
