"""Who does not answer in time is let be for a while: a machine that is busy is slow too, and no enemy.

A ban would outlast the load by far, and a swarm on busy machines would ban itself asunder. What slowness costs whoever
asks, a request that hangs until its deadline, gets rarer with every rest.
"""

from __future__ import annotations

from typing import NamedTuple

FIRST_REST, LONGEST_REST = 5.0, 300.0
MOST_RESTING = 1024


class Rest(NamedTuple):
    """A peer's rest: its length in seconds, and when it is over."""

    seconds: float
    until: float


class Patience:
    """Peers that were slow, each with its rest: twice as long whenever it is slow again, over at a timely answer."""

    def __init__(self) -> None:
        self._rests: dict[str, Rest] = {}

    def rests(self, peer: str, now: float) -> bool:
        """Tell whether a peer is not to be asked at the moment."""
        return peer in self._rests and self._rests[peer].until > now

    def slow(self, peer: str, now: float) -> None:
        """Let a peer be. Requests that hang together are one slowness: while it rests, nothing is added."""
        if self.rests(peer, now):
            return
        before = self._rests.pop(peer, None)
        seconds = min(2 * before.seconds, LONGEST_REST) if before else FIRST_REST
        self._rests[peer] = Rest(seconds, now + seconds)
        if len(self._rests) > MOST_RESTING:
            del self._rests[next(iter(self._rests))]

    def answered(self, peer: str) -> None:
        """Forget that a peer was slow."""
        self._rests.pop(peer, None)
