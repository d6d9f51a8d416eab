"""Inbound connections of a real host: each gives its place back, and nobody fills the way in."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from node.identity import NodeKey, new_key
from node.network import inbound
from node.network.host import Host, open_host
from node.network.inbound import MAX_HALF_OPEN, MAX_HALF_OPEN_PER_IP, HalfOpen, to_evict
from node.network.reqresp.streams import StreamLostError

MAX_PEERS = 2
PLACES = MAX_PEERS + 8
"""Connections that a host of so many peers takes (`Host`)."""


class Listening:
    """A host that listens on loopback, and what became of its inbound connections."""

    def __init__(self, host: Host) -> None:
        self.host, self.events = host, Counter[str]()
        host.count_connection = lambda event: self.events.update([event])

    @property
    def transport(self) -> str:
        """Its listen address."""
        return self.host.addresses[0].rpartition("/p2p/")[0]

    async def socket(self) -> trio.SocketStream:
        """Open a socket to it that says nothing."""
        return await trio.open_tcp_stream("127.0.0.1", int(self.transport.rpartition("/")[2]))

    @asynccontextmanager
    async def joined(self, key: NodeKey | None = None) -> AsyncIterator[bool]:
        """Connect a new host to it and yield whether it got in."""
        async with open_host(key or new_key(), (), 8) as dialer:
            yield await dialer.connect(self.transport, self.host.peer_id)

    async def visit(self) -> None:
        """Connect, and leave at once."""
        async with self.joined() as joined:
            assert joined, self.events

    async def until(self, count: int, event: str) -> None:
        """Wait until something has happened to so many connections."""
        with trio.fail_after(20):
            while self.events[event] < count:  # noqa: ASYNC110 - counted by the host
                await trio.sleep(0.01)


@asynccontextmanager
async def listening() -> AsyncIterator[Listening]:
    """A host with ten places."""
    async with open_host(new_key(), (), MAX_PEERS) as host:
        await host.listen(["/ip4/127.0.0.1/tcp/0"])
        yield Listening(host)


async def gets_in(host: Listening, seconds: float = 5.0) -> bool:
    """Return True if a newcomer gets in within some time; it tries again, as nodes do."""
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        async with host.joined() as joined:
            if joined:
                return True
    return False


async def test_ten_times_as_many_connections_as_places_come_and_go() -> None:
    """Each gives its place back: after a hundred strangers, five at a time, the next one gets in."""
    async with listening() as host:
        for turn in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(PLACES // 2):
                    nursery.start_soon(host.visit)
            await host.until((turn + 1) * PLACES // 2, inbound.ENDED)
        assert host.events[inbound.ESTABLISHED] == host.events[inbound.ENDED] == 10 * PLACES
        assert await gets_in(host)


async def test_five_thousand_sockets_come_and_go() -> None:
    """Sockets that are closed at once leave nothing behind: a newcomer gets in."""
    async with listening() as host:
        for _ in range(50):
            async with AsyncExitStack() as stack:
                for _ in range(100):
                    await stack.enter_async_context(await host.socket())
        assert await gets_in(host)
        await host.until(5_001, inbound.ACCEPTED)


async def test_a_full_host_says_so_and_takes_the_next_one_once_a_place_is_free() -> None:
    """With every place taken a newcomer is refused and one warning is logged; when one leaves, the next gets in."""
    async with listening() as host, AsyncExitStack() as stack:
        for _ in range(PLACES - 1):
            assert await stack.enter_async_context(host.joined())
        last = await stack.enter_async_context(AsyncExitStack())
        assert await last.enter_async_context(host.joined())
        with capture_logs() as logs:
            for _ in range(3):
                async with host.joined() as joined:
                    assert not joined
        assert [each["event"] for each in logs if each["log_level"] == "warning"].count("gossip.connections_full") == 1
        assert host.events[inbound.FULL] == 3
        await last.aclose()
        assert await gets_in(host)


async def test_silent_sockets_keep_nobody_out() -> None:
    """Ten times as many silent sockets as there may be half open, from a newcomer's own address: it gets in."""
    async with listening() as host, AsyncExitStack() as stack:
        for _ in range(10 * MAX_HALF_OPEN_PER_IP):
            await stack.enter_async_context(await host.socket())
        async with host.joined() as joined:
            assert joined
        assert host.events[inbound.EVICTED] >= 9 * MAX_HALF_OPEN_PER_IP


async def test_a_silent_socket_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing, or stops in the middle of the handshake, is gone after a time."""
    monkeypatch.setattr(inbound, "FIRST_BYTE_SECONDS", 0.1)
    monkeypatch.setattr(inbound, "HANDSHAKE_SECONDS", 0.1)
    async with listening() as host, await host.socket() as silent, await host.socket() as stuck:
        await stuck.send_all(b"\x13/multi")
        with trio.fail_after(5):
            assert await silent.receive_some(1) == b""
            while await stuck.receive_some(64):
                pass
        assert host.events[inbound.SILENT] == 1


async def test_a_banned_peer_gets_no_stream() -> None:
    """It learns who it talks to and no more: no muxer, no identify; others get in as before."""
    banned = new_key()
    async with listening() as host:
        host.host.accepts_peer = lambda peer: peer != banned.peer_id
        async with open_host(banned, (), 8) as dialer:
            await dialer.connect(host.transport, host.host.peer_id)
            with pytest.raises(StreamLostError):
                async with dialer.request(host.host.peer_id, "/ipfs/id/1.0.0"):
                    pass
        await host.until(1, inbound.PEER_BANNED)
        assert host.events[inbound.ESTABLISHED] == 0
        assert await gets_in(host)


async def test_a_banned_address_gets_no_handshake() -> None:
    """Its socket is closed before a byte is read."""
    async with listening() as host:
        host.host.accepts_ip = lambda address: False
        async with await host.socket() as socket:
            with trio.fail_after(5):
                assert await socket.receive_some(1) == b""
        assert host.events == {inbound.ACCEPTED: 1, inbound.IP_BANNED: 1}


# --- who makes room ---------------------------------------------------------------------------------------------------


def half_open(*addresses: str, spoken: frozenset[int] = frozenset()) -> list[HalfOpen]:
    """Return sockets in the order in which they came."""
    found = [HalfOpen(address) for address in addresses]
    for number in spoken:
        found[number].has_spoken = True
    return found


def test_nobody_makes_room_while_there_is_some() -> None:
    """Below both limits nothing is evicted."""
    assert to_evict(half_open(*"ab"), "a") is None
    assert to_evict(half_open(*["a"] * (MAX_HALF_OPEN_PER_IP - 1)), "a") is None


def test_a_busy_address_makes_room_for_itself() -> None:
    """At its own limit an address loses its oldest silent socket; others keep theirs."""
    sockets = half_open("b", *["a"] * MAX_HALF_OPEN_PER_IP, spoken=frozenset({1}))
    assert to_evict(sockets, "a") is sockets[2]
    assert to_evict(sockets, "b") is None


def test_the_busiest_address_makes_room_for_all() -> None:
    """At the limit of all, the oldest silent one of the address with the most goes."""
    sockets = half_open(*["a"] * 100, *["b"] * 50, *[f"c{n}" for n in range(MAX_HALF_OPEN - 150)])
    assert to_evict(sockets, "new") is sockets[0]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=2 * MAX_HALF_OPEN))
def test_the_half_open_stay_bounded(arrivals: list[tuple[str, bool]]) -> None:
    """Whoever comes in whatever order: never more than the limits, and who is alone on an address is never evicted."""
    sockets: list[HalfOpen] = half_open("alone")
    for address, speaks in arrivals:
        evicted = to_evict(sockets, address)
        if evicted is not None:
            sockets.remove(evicted)
        sockets.append(HalfOpen(address))
        sockets[-1].has_spoken = speaks
    counts = Counter(each.address for each in sockets)
    assert len(sockets) <= MAX_HALF_OPEN
    assert max(counts.values()) <= MAX_HALF_OPEN_PER_IP
    assert counts["alone"] == 1
