"""What replaces functions of the library's yamux: frames leave whole, and small reads send no window updates."""

from __future__ import annotations

from typing import Any

import trio
from libp2p.io.exceptions import IOException
from libp2p.stream_muxer.yamux.yamux import YamuxStream

WRITE_SECONDS = 10.0
"""How long one frame may take to leave before the connection is closed."""

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
