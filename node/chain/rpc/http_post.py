"""One POST over HTTP whose answer is bounded in bytes and time, whatever the other side sends."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import httpx
import trio

MAX_ANSWER = 16 << 20
"""Bytes of one answer, over HTTP and WebSocket: the registrations of twenty thousand nodes in one range of blocks."""
REQUEST_SECONDS = 10.0
"""How long an answer may take, to its last byte."""
MAX_RETRY_SECONDS = 300.0
"""The longest pause that a server can ask for."""
HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}
"""Compressed answers are not asked for: a small one may unpack to gigabytes."""


class AnswerTooLargeError(ValueError):
    """The answer has more than `MAX_ANSWER` bytes."""


class RateLimitedError(httpx.HTTPError):
    """The server takes no requests for `seconds` (429, or 503 with Retry-After); 0.0 where it does not say."""

    def __init__(self, status: int, seconds: float) -> None:
        super().__init__(f"{status}, retry after {seconds:.0f} s")
        self.seconds = seconds


async def post(http: httpx.AsyncClient, url: str, body: bytes, now: float) -> bytes:
    """Return the answer's bytes. `now` is Unix seconds, for a Retry-After that names a date.

    Raises httpx.HTTPError, `RateLimitedError` among them, `AnswerTooLargeError` before more bytes are read, ValueError
    for a compressed answer, and trio.TooSlowError.
    """
    with trio.fail_after(REQUEST_SECONDS):
        async with http.stream("POST", url, content=body, headers=HEADERS) as answer:
            asked = answer.headers.get("retry-after")
            if answer.status_code == 429 or (answer.status_code == 503 and asked):
                raise RateLimitedError(answer.status_code, retry_seconds(asked or "", now))
            answer.raise_for_status()
            if answer.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
                raise ValueError(f"the answer is compressed ({answer.headers['content-encoding'][:20]}), unasked")
            return await _read(answer)


async def _read(answer: httpx.Response) -> bytes:
    found = bytearray()
    async for part in answer.aiter_raw():
        if len(found) + len(part) > MAX_ANSWER:
            raise AnswerTooLargeError(f"the answer has more than {MAX_ANSWER >> 20} MiB")
        found += part
    return bytes(found)


def retry_seconds(text: str, now: float) -> float:
    """Return the pause that a Retry-After asks for (RFC 9110, 10.2.3: seconds, or a date), within bounds."""
    try:
        seconds = float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), MAX_RETRY_SECONDS)
