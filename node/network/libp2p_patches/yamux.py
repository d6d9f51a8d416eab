"""The library's yamux, repaired and made quiet: frames leave whole, and reading costs no answer of its own."""

from __future__ import annotations

from typing import Any

import trio
from libp2p.io.exceptions import IOException
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

WRITE_SECONDS = 10.0
"""How long one frame may take to leave before the connection is closed."""

_send_window_update = YamuxStream._auto_tune_and_send_window_update


async def _write_whole_frame(self: Any, data: bytes) -> None:
    """Never abandon a frame between its encryption and its sending: the noise nonces would disagree from then on and
    the whole connection would die. The deadline closes the connection instead."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_SECONDS) as scope:
        async with self._write_lock:
            await self.secured_conn.write(data)
    if scope.cancelled_caught:
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await self.secured_conn.close()
        raise IOException("the peer does not drain its connection")
    await trio.lowlevel.checkpoint()


async def _update_window(self: YamuxStream, *, bytes_read: int = 0) -> None:
    """Give the sender new credit once half of the window is used up, as go-yamux does. The library does so after every
    read, however small: each message of gossip, read in three parts, had three encrypted frames as its answer."""
    buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
    if self.target_recv_window - (self.recv_window + buffered) >= self._grow_threshold():
        await _send_window_update(self)


def install() -> None:
    """Patch what can't be overridden."""
    muxer: Any = Yamux
    stream: Any = YamuxStream
    muxer._write_frame = _write_whole_frame
    stream._auto_tune_and_send_window_update = _update_window
