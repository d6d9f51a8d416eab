"""Endpoint failover: which endpoint is tried next, and after how long. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from node.backoff import Backoff

FIRST_PAUSE, LAST_PAUSE = 0.2, 10.0
"""Seconds between two attempts to connect, once every endpoint has failed: the first pause and the longest."""


class EndpointFailover:
    """Endpoints in turn. `longest` is the longest pause in seconds, and how long a session lasts that counts as steady.

    Until one does, its end is one failure more: an endpoint that takes connections and refuses requests (a rate limit)
    is no better than one that is away.
    """

    def __init__(self, urls: Sequence[str], longest: float) -> None:
        self._urls, self._longest = urls, longest
        self._failures, self._retry_after = 0, 0.0

    @property
    def url(self) -> str:
        """The endpoint to try now."""
        return self._urls[self._failures % len(self._urls)]

    def session_ended(self, seconds: float, retry_after: float = 0.0) -> None:
        """Note the end of a session that had worked for so many seconds, and the pause that the endpoint asks for."""
        self._failures = 1 if seconds >= self._longest else self._failures + 1
        self._retry_after = retry_after

    @property
    def pause(self) -> float:
        """Seconds before the next attempt; 0.0 while there is another endpoint that has not failed yet.

        An endpoint that asks for a pause gets it where there is no other one.
        """
        pause = Backoff(FIRST_PAUSE, self._longest).pause(self._failures // len(self._urls))
        return max(pause, self._retry_after) if len(self._urls) == 1 else pause


def redact(url: str) -> str:
    """Return an URL without its path and user, where providers put their keys."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}"
