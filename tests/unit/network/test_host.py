"""The host's listening sockets: nobody else's while it runs, nobody's after it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from node.identity import new_key
from node.network.host import IDENTIFY_PUSH_PROTOCOL, Host, HostListenError, open_host
from node.network.reqresp.streams import StreamLostError

ANY_PORT = "/ip4/127.0.0.1/tcp/0"


@asynccontextmanager
async def listening(address: str) -> AsyncIterator[Host]:
    async with open_host(new_key(), (), 8) as host:
        await host.listen([address])
        yield host


def transport_of(host: Host) -> str:
    return host.addresses[0].rpartition("/p2p/")[0]


async def test_a_cancelled_host_leaves_nobody_at_its_port() -> None:
    """The library's listeners outlive a cancelled host: every other dial would go to one that nobody answers."""
    with trio.CancelScope() as session:
        async with listening(ANY_PORT) as host:
            transport = transport_of(host)
            session.cancel()
            await trio.lowlevel.checkpoint()
    with pytest.raises(OSError):
        await trio.open_tcp_stream("127.0.0.1", int(transport.rpartition("/")[2]))
    async with listening(transport) as again:
        assert transport_of(again) == transport


async def test_a_disconnected_peer_is_gone_at_once() -> None:
    """The connection is closed below the library, which would first wait for the other side."""
    async with listening(ANY_PORT) as host, open_host(new_key(), (), 8) as other:
        assert await other.connect(transport_of(host), host.peer_id)
        other.disconnect(host.peer_id)
        with trio.fail_after(2):
            while host.connected() or other.connected():  # noqa: ASYNC110 - the library has no event for it
                await trio.sleep(0.01)


async def test_two_hosts_do_not_share_a_port() -> None:
    """A port in use is refused by name; it is not shared with another host, and one free address is enough."""
    async with listening(ANY_PORT) as host:
        transport = transport_of(host)
        async with open_host(new_key(), (), 8) as other:
            with pytest.raises(HostListenError, match=f"{transport}: in use"):
                await other.listen([transport])
            await other.listen([transport, ANY_PORT])
            assert transport not in other.addresses[0]


async def test_nobody_pushes_addresses() -> None:
    """Identify answers who asks; a push finds no protocol, and the connection stays."""
    async with listening(ANY_PORT) as host, open_host(new_key(), (), 8) as other:
        assert await other.connect(transport_of(host), host.peer_id)
        with pytest.raises(StreamLostError):
            async with other.request(host.peer_id, IDENTIFY_PUSH_PROTOCOL):
                pass
        async with other.request(host.peer_id, "/ipfs/id/1.0.0") as stream:
            assert await stream.read(1)
        assert host.peer_id in other.connected()


async def test_a_ping_is_answered_whatever_the_peer_has_to_do() -> None:
    """The muxer answers while all streams wait for a handler that never ends; a peer that is gone does not answer."""
    async with listening(ANY_PORT) as host, open_host(new_key(), (), 8) as other:

        async def stuck(peer: str, stream: object) -> None:
            await trio.sleep_forever()

        host.serve("/stuck/1", stuck)
        assert await other.connect(transport_of(host), host.peer_id)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(_wait_on, other, host.peer_id)
            await trio.sleep(0.2)
            assert [await other.ping(host.peer_id, 2.0) for _ in range(5)] == [True] * 5
            nursery.cancel_scope.cancel()
        other.disconnect(host.peer_id)
        with trio.fail_after(5):
            while await other.ping(host.peer_id, 0.1):
                pass


async def _wait_on(host: Host, peer: str) -> None:
    async with host.request(peer, "/stuck/1") as stream:
        await stream.read(1)
