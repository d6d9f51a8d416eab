"""What replaces functions of the library's yamux: frames leave whole, small reads send no window updates, and what
nobody has read is bounded."""

from __future__ import annotations

from typing import Any

import trio
from libp2p.io.exceptions import IOException
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

WRITE_SECONDS = 10.0
"""How long one frame may take to leave before the connection is closed."""

MAX_WINDOW = 1 << 20
"""Bytes up to which a stream's window may grow, and the longest DATA frame: a body at 100 ms round trip still comes at
ten megabytes a second."""
MAX_UNREAD = 6 << 20
"""Bytes of one connection that may lie unread. An honest peer has a few streams with a full window at most: two bodies,
an answer to catch-up, gossip."""

_read_data_body = Yamux._read_data_body
_send_window_update = YamuxStream._auto_tune_and_send_window_update


async def write_whole_frame(self: Any, data: bytes) -> None:
    """Write a frame; a cancelled writer finishes it first. The deadline closes the connection.

    Between its encryption and its sending a frame must not be abandoned: the noise nonces would disagree from then on,
    and the whole connection would die.
    """
    with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_SECONDS) as scope:
        async with self._write_lock:
            await self.secured_conn.write(data)
    if scope.cancelled_caught:
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await self.secured_conn.close()
        raise IOException("the peer does not drain its connection")
    await trio.lowlevel.checkpoint()


async def update_window(self: YamuxStream, *, bytes_read: int = 0) -> None:
    """Give the sender new credit once half of the window is used up, as go-yamux does."""
    buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
    if self.target_recv_window - (self.recv_window + buffered) >= self._grow_threshold():
        await _send_window_update(self)


async def read_bounded_body(self: Yamux, length: int) -> bytes:
    """Read a DATA frame's bytes; close the connection before they are read where too many would lie unread.

    The library only warns of a peer that sends beyond its window, and keeps the bytes. An empty body is returned for
    a connection that is closed here: its reader then finds that it is shut down.
    """
    unread = sum(len(each) for each in self.stream_buffers.values())
    if unread + length > MAX_UNREAD:
        report = getattr(getattr(self, "swarm", None), "report_window_exceeded", None)
        if report is not None:
            report(str(self.peer_id))
        await self._cleanup_on_error()
        return b""
    return await _read_data_body(self, length)
