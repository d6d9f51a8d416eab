"""A node that is late itself blames nobody for silence."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.identity import new_key
from node.network.host import open_host
from node.network.peers.loop_lag import LATE_SECONDS, WINDOW_SECONDS, LoopLag
from node.network.peers.peer_manager import PeerManager
from node.network.peers.peer_store import PeerStore

BEATS = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 9)), max_size=60)


@given(BEATS)
def test_the_lag_is_the_largest_lateness_of_the_last_seconds(beats: list[tuple[float, float]]) -> None:
    """As looking through all beats gives it, at each of them and long after."""
    lag, now, every = LoopLag(), 0.0, list[tuple[float, float]]()
    for late, pause in beats:
        now += pause
        lag.beat(late, now)
        every.append((now, late))
        assert lag.seconds(now) == max(each for at, each in every if at >= now - WINDOW_SECONDS)
    assert lag.seconds(now + 2 * WINDOW_SECONDS) == 0.0


def test_lateness_ends() -> None:
    """At the limit a node is not late, beyond it it is, and some seconds later no more."""
    lag = LoopLag()
    lag.beat(LATE_SECONDS, 0.0)
    assert not lag.is_late(0.0)
    lag.beat(10 * LATE_SECONDS, 1.0)
    assert lag.is_late(1.0 + WINDOW_SECONDS)
    assert not lag.is_late(1.1 + WINDOW_SECONDS)


async def swallow(frame: bytes) -> None:
    """Send nothing."""


@pytest.mark.parametrize("late", [True, False])
async def test_a_silent_peer_is_cut_unless_this_node_is_late(late: bool) -> None:
    """Two pings without an answer end the connection of a node that is in time; a late one keeps it."""

    async def nobody() -> list[str]:
        return []

    async with open_host(new_key(), (), 8) as host, open_host(new_key(), (), 8) as other:
        await other.listen(("/ip4/127.0.0.1/tcp/0",))
        manager = PeerManager(host, PeerStore(None), bootnodes=nobody, max_peers=8, ping_seconds=0.2, target_peers=0)
        if late:
            manager.lag.beat(10.0, trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.run)
            assert await host.connect(other.addresses[0].rpartition("/p2p/")[0], other.peer_id)
            await trio.sleep(0.5)
            for connection in other.inner.get_network().get_connections():
                connection.muxed_conn._write_frame = swallow  # it hears everything and says nothing any more
            with trio.move_on_after(4.0):
                while other.peer_id in host.connected():  # noqa: ASYNC110 - the library has no event for it
                    await trio.sleep(0.05)
            assert (other.peer_id in host.connected()) is late
            assert manager.unresponsive == (0 if late else 1)
            nursery.cancel_scope.cancel()


async def test_a_late_node_dials_nobody_while_it_is_connected() -> None:
    """Alone it dials all the same: it has nothing to lose."""

    async def nobody() -> list[str]:
        return []

    async with open_host(new_key(), (), 8) as host, open_host(new_key(), (), 8) as other:
        await other.listen(("/ip4/127.0.0.1/tcp/0",))
        store = PeerStore(None)
        store.add_addresses(new_key().peer_id, ["/ip4/127.0.0.1/tcp/9"])
        manager = PeerManager(host, store, bootnodes=nobody, max_peers=8, ping_seconds=5.0)
        manager.lag.beat(10.0, trio.current_time())
        assert len(manager._due()) == 1
        assert await host.connect(other.addresses[0].rpartition("/p2p/")[0], other.peer_id)
        assert manager._due() == []
