"""Length-delimited frames: the length as an unsigned varint (LEB128), then so many bytes.

libp2p and protobuf write messages to a stream like that; so do the node and its child processes. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

LENGTH_BYTES = 10
"""Bytes of the longest length: a varint of 64 bits."""


class FrameTooLargeError(ValueError):
    """A frame is longer than its limit, or its length does not end."""


def delimited(body: bytes, limit: float = math.inf) -> bytes:
    """Return a frame. Raises `FrameTooLargeError` for a body of more than `limit` bytes."""
    _check(len(body), limit)
    left, length = len(body), bytearray()
    while left >= 0x80:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    return bytes(length) + body


def frame_length(head: bytes | bytearray, limit: int) -> tuple[int, int] | None:
    """Return the length of the frame that `head` begins, and how many bytes that length itself takes.

    None if the length is not all there. Raises `FrameTooLargeError`, if need be before all of it is there.
    """
    length = 0
    for place, byte in enumerate(head[:LENGTH_BYTES]):
        length |= (byte & 0x7F) << (7 * place)
        _check(length, limit)
        if byte < 0x80:
            return length, place + 1
    if len(head) >= LENGTH_BYTES:
        raise FrameTooLargeError(f"a frame whose length has more than {LENGTH_BYTES} bytes")
    return None


class FrameReader:
    """Cuts a stream of bytes into frames of at most `limit` bytes. Holds what was fed of the frame to come."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes as they came off the stream."""
        self._held += data

    def next(self) -> bytes | None:
        """Return the next whole frame without its length, None if it is not all there. Raises `FrameTooLargeError`."""
        found = frame_length(self._held, self._limit)
        if found is None or len(self._held) < sum(found):
            return None
        length, begin = found
        body = bytes(self._held[begin : begin + length])
        del self._held[: begin + length]
        return body

    def __iter__(self) -> Iterator[bytes]:
        """Yield every whole frame that is there. Raises `FrameTooLargeError`."""
        while (body := self.next()) is not None:
            yield body


def _check(length: int, limit: float) -> None:
    if length > limit:
        raise FrameTooLargeError(f"a frame of {length} bytes or more exceeds the limit of {limit}")
