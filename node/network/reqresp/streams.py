"""Frames on a stream between two peers, with a deadline for each, and requests that always end their stream."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

FRAME_SECONDS = 10.0
SLOW = "stream-slow"
"""Fault of a peer that was asked and kept this node waiting: a busy machine is slow too."""
DRIP = "stream-drip"
"""Fault of a peer that began to send a body and did not go on in time."""
SHORT = "stream-short"
"""Fault of a peer whose side of a stream ended in the middle: it may have been killed."""
IDLE = "stream-idle"
"""Fault of a peer that opened a stream here and then kept it waiting."""
CHUNK = 64 << 10
_length = struct.Struct(">I")


class StreamFault(Exception):  # noqa: N818 - names what the other side did
    """The other side broke the protocol of a stream; `code` is counted."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Readable(Protocol):
    """The part of a libp2p stream that reading a frame needs."""

    async def read(self, n: int) -> bytes:
        """Return up to `n` bytes, empty at the end."""


async def read_frame(stream: Readable, limit: int) -> bytes:
    """Return one length-prefixed frame of at most `limit` bytes, within `FRAME_SECONDS`. Raises `StreamFault`."""
    with trio.move_on_after(FRAME_SECONDS):
        (length,) = _length.unpack(await _read_exactly(stream, _length.size))
        if length > limit:
            raise StreamFault("stream-size")
        return await _read_exactly(stream, length)
    raise StreamFault(SLOW)


async def _read_exactly(stream: Readable, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = await stream.read(count - len(data))
        if not part:
            raise StreamFault(SHORT)
        data += part
    return bytes(data)


async def write_frame(stream: INetStream, data: bytes) -> None:
    """Write one frame within `FRAME_SECONDS`. Raises `StreamFault`."""
    with trio.move_on_after(FRAME_SECONDS):
        await stream.write(_length.pack(len(data)) + data)
        return
    raise StreamFault(SLOW)


@asynccontextmanager
async def request(host: IHost, peer: ID, protocol: str) -> AsyncIterator[INetStream]:
    """Open a stream to a connected peer; it is reset when the block fails and closed when it ends.

    Raises `ConnectionError` where the peer is not connected: the library would dial on its own.
    """
    if not host.get_network().get_connections(peer):
        raise ConnectionError(f"{peer} is not connected")
    stream: INetStream | None = None
    with trio.move_on_after(FRAME_SECONDS):
        stream = await host.new_stream(peer, [TProtocol(protocol)])
    if stream is None:
        raise StreamFault(SLOW)
    async with ending(stream):
        yield stream


@asynccontextmanager
async def ending(stream: INetStream) -> AsyncIterator[None]:
    """Close a stream at the end of the block, reset it where the block fails or is cancelled."""
    try:
        yield
    except BaseException:
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await stream.reset()
        raise
    with trio.CancelScope(shield=True), trio.move_on_after(1):
        await stream.close()
