"""What a stranger may claim while the protocol of a connection is negotiated, before it is authenticated."""

from __future__ import annotations

import pytest
import trio
from libp2p.utils import encode_uvarint

from node.network.host import Host, open_host
from tests.integration.gossip_processes import peer_key

pytestmark = pytest.mark.integration

HELLO = b"\x13/multistream/1.0.0\n"
SECONDS = 30.0
CLAIMED = 2**33


async def dial(host: Host) -> trio.SocketStream:
    """Open a bare socket to a host's first listen address."""
    _, _, ip, _, port, *_ = host.addresses[0].split("/")
    return await trio.open_tcp_stream(ip, int(port))


async def until_closed(stream: trio.SocketStream) -> bytes:
    """Return what the host sends before it closes the connection."""
    received = b""
    with trio.fail_after(SECONDS):
        try:
            while data := await stream.receive_some(100):
                received += data
        except trio.BrokenResourceError:  # closed with our bytes unread
            pass
    return received


async def flood(stream: trio.SocketStream, sent: list[int]) -> None:
    """Send a message of CLAIMED bytes as fast as the host takes it; note the size of what went out."""
    await stream.send_all(encode_uvarint(CLAIMED))
    while sum(sent) < CLAIMED:
        await stream.send_all(bytes(65_536))
        sent.append(65_536)


@pytest.mark.parametrize("claimed", [2**40, 2**63 + 5], ids=["beyond-memory", "beyond-a-size"])
async def test_an_impossible_length_ends_that_connection_alone(claimed: int) -> None:
    """The library allocates what a length prefix claims (GHSA-hmjq-g7pp-rw3x): the error must not end the host."""
    async with open_host(peer_key(1), (), 16) as host:
        await host.listen(["/ip4/127.0.0.1/tcp/0"])
        async with await dial(host) as hostile:
            await hostile.send_all(encode_uvarint(claimed) + b"x")
            assert await until_closed(hostile) in (b"", HELLO)
        async with await dial(host) as other:
            await other.send_all(HELLO)
            with trio.fail_after(SECONDS):
                assert await other.receive_some(100) == HELLO


async def test_a_message_without_end_is_cut_off() -> None:
    """A peer that goes on sending the 8 GiB that it claimed is dropped long before."""
    sent: list[int] = []
    async with open_host(peer_key(1), (), 16) as host:
        await host.listen(["/ip4/127.0.0.1/tcp/0"])
        async with await dial(host) as hostile:
            with trio.fail_after(SECONDS), pytest.raises(trio.BrokenResourceError):
                await flood(hostile, sent)
    assert sum(sent) < CLAIMED // 8
