"""What a stream between two real hosts costs in frames."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p.abc import INetStream

from node.identity import new_key
from node.network.host import Host, open_host
from node.network.reqresp.streams import read_frame, write_frame

PROTOCOL = "/test/1"
WINDOW = 256 << 10
"""Bytes that a stream's sender may be ahead of its reader at first: yamux's own default."""


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Host, Host]]:
    """Two hosts, the first connected to the second."""
    async with open_host(new_key(), (), 8) as asking, open_host(new_key(), (), 8) as serving:
        await serving.listen(["/ip4/127.0.0.1/tcp/0"])
        transport = serving.addresses[0].rpartition("/p2p/")[0]
        assert await asking.connect(transport, serving.peer_id)
        yield asking, serving


def updates(stream: INetStream) -> int:
    """Return how often the reader of a stream has given its sender new credit; the library counts it."""
    muxed = stream.muxed_stream  # type: ignore[attr-defined]
    return int(muxed._window_update_full_grow + muxed._window_update_partial_slack + muxed._window_update_pending_flush)


async def received(parts: list[int]) -> tuple[int, int]:
    """Have a host send frames of so many bytes; return how many bytes arrived, and the updates they cost."""
    async with pair() as (asking, serving):

        async def send(peer: str, stream: INetStream) -> None:
            for size in parts:
                await write_frame(stream, bytes(size))

        serving.serve(PROTOCOL, send)
        async with asking.request(serving.peer_id, PROTOCOL) as stream:
            arrived = sum([len(await read_frame(stream, max(parts))) for _ in parts])
            return arrived, updates(stream)


async def test_small_messages_have_no_answers() -> None:
    """A hundred small frames use up less than half of the window: nothing is sent back for them."""
    assert await received([100] * 100) == (100 * 100, 0)


async def test_a_large_body_never_waits_for_credit() -> None:
    """Four windows' worth come through, and the sender gets credit a few times, not with every read."""
    with trio.fail_after(10):
        arrived, given = await received([64 << 10] * 16)
    assert arrived == 4 * WINDOW
    assert 1 <= given <= 8
