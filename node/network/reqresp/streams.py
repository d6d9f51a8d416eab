"""Frames on a stream between two peers, with a deadline for each, and requests that always end their stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from node.frames import FrameTooLargeError, delimited, frame_length

FRAME_SECONDS = 10.0
CLOSE_SECONDS = 1.0
TIMEOUT = "stream-timeout"
"""Fault of a peer that was asked and did not answer in time: a busy machine is slow, too."""
BODY_TIMEOUT = "body-timeout"
"""Fault of a peer that began to send a body and did not finish in time."""
EOF = "stream-eof"
"""Fault of a peer whose side of a stream ended in the middle: it may have been killed."""
IDLE = "stream-idle"
"""Fault of a peer that opened a stream to this node and then sent nothing."""
CHUNK = 64 << 10


class StreamFault(Exception):  # noqa: N818 - names what the other side did
    """The other side broke the protocol of a stream; `code` is counted."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class StreamLostError(Exception):
    """A request failed below its protocol, with whatever the library raised: nobody is to blame for that."""


class Readable(Protocol):
    """The part of a libp2p stream that reading a frame needs."""

    async def read(self, n: int) -> bytes:
        """Return up to `n` bytes, empty at the end."""


async def read_frame(stream: Readable, limit: int) -> bytes:
    """Return one frame (`node.frames`) of at most `limit` bytes, within `FRAME_SECONDS`. Raises `StreamFault`."""
    with trio.move_on_after(FRAME_SECONDS):
        return await read_exactly(stream, await _read_length(stream, limit))
    raise StreamFault(TIMEOUT)


async def _read_length(stream: Readable, limit: int) -> int:
    """Byte by byte, as libp2p does: what follows stays in the stream."""
    head = bytearray()
    try:
        while (found := frame_length(head, limit)) is None:
            head += await read_exactly(stream, 1)
    except FrameTooLargeError as error:
        raise StreamFault("stream-size") from error
    return found[0]


async def read_exactly(stream: Readable, count: int) -> bytes:
    """Return `count` bytes. Raises `StreamFault` where the stream ends before."""
    data = bytearray()
    while len(data) < count:
        part = await stream.read(count - len(data))
        if not part:
            raise StreamFault(EOF)
        data += part
    return bytes(data)


async def write_frame(stream: INetStream, data: bytes) -> None:
    """Write one frame within `FRAME_SECONDS`. Raises `StreamFault`."""
    with trio.move_on_after(FRAME_SECONDS):
        await stream.write(delimited(data))
        return
    raise StreamFault(TIMEOUT)


@asynccontextmanager
async def request(host: IHost, peer: ID, protocol: str) -> AsyncIterator[INetStream]:
    """Open a stream to a connected peer; it is reset when the block fails and closed when it ends.

    Raises `StreamFault` from the block, `StreamLostError` for everything else that goes wrong in it or before it.
    """
    try:
        stream = await _open(host, peer, protocol)
        async with closing(stream):
            yield stream
    except StreamFault:
        raise
    except Exception as error:
        raise StreamLostError(f"{type(error).__name__}: {error}"[:200]) from error


async def _open(host: IHost, peer: ID, protocol: str) -> INetStream:
    """Open a stream within `FRAME_SECONDS`. To a peer that is not connected, the library would dial on its own."""
    if not host.get_network().get_connections(peer):
        raise ConnectionError(f"{peer} is not connected")
    with trio.move_on_after(FRAME_SECONDS):
        return await host.new_stream(peer, [TProtocol(protocol)])
    raise StreamFault(TIMEOUT)


@asynccontextmanager
async def closing(stream: INetStream) -> AsyncIterator[None]:
    """Close a stream at the end of the block, reset it where the block fails or is cancelled."""
    done = False
    try:
        yield
        done = True
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
            await (stream.close() if done else stream.reset())
