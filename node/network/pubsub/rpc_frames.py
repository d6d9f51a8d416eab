"""Varint-delimited codec of GossipSub RPCs: each is a length, then so many bytes."""

from __future__ import annotations

from libp2p.io.exceptions import MessageTooLarge
from libp2p.network.stream.exceptions import StreamEOF

from node.network.reqresp.streams import Readable

PART = 64 << 10
"""Bytes read at a time: whatever has arrived, often several RPCs."""
MAX_LENGTH_BYTES = 10


class RpcFrames:
    """The RPCs of one stream, of at most `limit` bytes each; no more than one of them and a part are held."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self._stream, self._limit, self._held = stream, limit, bytearray()

    async def next(self) -> bytes:
        """Return the next RPC.

        Raises `StreamEOF` at the end of the stream, `MessageTooLarge` for a length above the limit, before its bytes
        are taken, or one without an end.
        """
        while (found := first_frame(self._held, self._limit)) is None:
            part = await self._stream.read(PART)
            if not part:
                raise StreamEOF
            self._held += part
        frame, used = found
        del self._held[:used]
        return frame


def first_frame(held: bytearray, limit: int) -> tuple[bytes, int] | None:
    """Return the first whole frame and how many bytes it took with its length; None while it is not all there.

    Raises `MessageTooLarge`.
    """
    length = 0
    for place, byte in enumerate(held[:MAX_LENGTH_BYTES]):
        length |= (byte & 0x7F) << (7 * place)
        if length > limit:
            raise MessageTooLarge(f"a frame of {length} bytes or more; at most {limit} are taken")
        if byte < 0x80:
            begin = place + 1
            return (bytes(held[begin : begin + length]), begin + length) if len(held) >= begin + length else None
    if len(held) >= MAX_LENGTH_BYTES:
        raise MessageTooLarge(f"a frame whose length has more than {MAX_LENGTH_BYTES} bytes")
    return None
