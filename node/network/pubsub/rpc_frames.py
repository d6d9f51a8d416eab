"""RPCs of GossipSub as they come off a stream."""

from __future__ import annotations

from libp2p.network.stream.exceptions import StreamEOF

from node.frames import FrameReader
from node.network.reqresp.streams import Readable

PART = 64 << 10
"""Bytes read at a time: whatever has arrived, often several RPCs."""


class RpcFrames:
    """The RPCs of one stream, of at most `limit` bytes each; no more than one of them and a part are held."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self._stream, self._reader = stream, FrameReader(limit)

    async def next(self) -> bytes:
        """Return the next RPC.

        Raises `StreamEOF` at the end of the stream, `FrameTooLargeError` for a length above the limit, before its bytes
        are taken, or one without an end.
        """
        while (frame := self._reader.next()) is None:
            part = await self._stream.read(PART)
            if not part:
                raise StreamEOF
            self._reader.feed(part)
        return frame
