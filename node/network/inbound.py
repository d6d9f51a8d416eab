"""Inbound connections from the accepted socket to their end: who may finish a handshake, and who has to make room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
import trio
from libp2p.network.connection.raw_connection import RawConnection
from multiaddr import Multiaddr

from node.network.peers.ip_bans import ip_key

log = structlog.get_logger()

FIRST_BYTE_SECONDS, HANDSHAKE_SECONDS = 5.0, 10.0
"""How long a socket may say nothing, and how long a handshake may take: security and muxer, a few round trips."""
MAX_HALF_OPEN, MAX_HALF_OPEN_PER_IP = 256, 128
"""Sockets without a finished handshake, in all and of one IPv4 address or IPv6 /64. An honest one is here for a few
round trips; above the limit the longest silent one of the busiest address makes room, so that nobody fills it up."""
WARNING_SECONDS = 60.0

ACCEPTED, ESTABLISHED, ENDED = "accepted", "established", "ended"
FULL, IP_BANNED, PEER_BANNED = "full", "ip-banned", "peer-banned"
SILENT, EVICTED, HANDSHAKE_FAILED = "silent", "evicted", "handshake-failed"


class HalfOpen:
    """A socket without a finished handshake: its address, whether it has sent anything, what ends it."""

    def __init__(self, address: str) -> None:
        self.address, self.has_spoken = address, False
        self.scope = trio.CancelScope()


def to_evict(half_open: Sequence[HalfOpen], address: str) -> HalfOpen | None:
    """Return which socket, the oldest first in `half_open`, makes room for another one from `address`; None for none.

    Where the newcomer's own address has too many, one of its own; where there are too many in all, one of the address
    that has the most. Silent ones go first, then the oldest.
    """
    counts = Counter(each.address for each in half_open)
    if counts[address] >= MAX_HALF_OPEN_PER_IP:
        busiest = address
    elif len(half_open) >= MAX_HALF_OPEN:
        busiest = counts.most_common(1)[0][0]
    else:
        return None
    return min((each for each in half_open if each.address == busiest), key=lambda each: each.has_spoken)


class InboundConnections:
    """Takes the place of `Swarm._handle_inbound_connection`, whose caller logs what is raised here.

    The library counts a connection against its limit until the swarm ends, and before its handshake. Here only live
    connections count, and sockets without a finished handshake have limits of their own.
    """

    def __init__(self, network: Any, accepts_ip: Callable[[str], bool], count: Callable[[str], None]) -> None:
        self._network, self._accepts_ip, self._count = network, accepts_ip, count
        self._half_open: list[HalfOpen] = []
        self._warned = -WARNING_SECONDS

    async def handle(self, stream: Any, listener: Multiaddr) -> None:
        """Let an accepted socket through the handshake and wait until its connection ends; then return.

        `stream` is the library's TCP stream. Whoever called this closes the socket.
        """
        self._count(ACCEPTED)
        remote = stream.get_remote_address()
        address = str(remote[0]) if remote else ""
        if not self._accepts_ip(address):
            self._count(IP_BANNED)
        elif self._is_full():
            self._refuse_full()
        else:
            connection = await self._shaken(stream, listener, ip_key(address))
            if connection is not None:
                self._count(ESTABLISHED)
                await connection.event_closed.wait()
                self._count(ENDED)
                return
        await stream.close()

    async def _connection(self, stream: Any, listener: Multiaddr, address: str) -> Any | None:
        """Return the library's connection once its handshake is done; None where it has to make room or says nothing.

        Raises what the library raises where the handshake fails.
        """
        muxed = None
        with self._opened(address) as half_open, half_open.scope:
            half_open.has_spoken = await _speaks(stream)
            if half_open.has_spoken:
                with trio.fail_after(HANDSHAKE_SECONDS):
                    muxed = await self._network.upgrade_inbound_raw_conn(RawConnection(stream, False), listener)
        if muxed is not None:
            found = self._network.get_connections(muxed.peer_id)
            return next((each for each in found if each.muxed_conn is muxed), None)
        self._count(EVICTED if half_open.scope.cancelled_caught else SILENT)
        return None

    async def _shaken(self, stream: Any, listener: Multiaddr, address: str) -> Any | None:
        """Return a connection, or None; count a handshake that failed, and let its error out to be logged."""
        done = False
        try:
            connection = await self._connection(stream, listener, address)
            done = True
        finally:
            if not done:
                self._count(HANDSHAKE_FAILED)
        return connection

    @contextmanager
    def _opened(self, address: str) -> Iterator[HalfOpen]:
        oldest = to_evict(self._half_open, address)
        if oldest is not None:
            self._half_open.remove(oldest)
            oldest.scope.cancel()
        half_open = HalfOpen(address)
        self._half_open.append(half_open)
        try:
            yield half_open
        finally:
            if half_open in self._half_open:
                self._half_open.remove(half_open)

    def _is_full(self) -> bool:
        limit: int = self._network.connection_config.max_connections
        return len(self._network.get_connections()) >= limit

    def _refuse_full(self) -> None:
        """Count, and say so now and then: a node that is full for long may want a higher `max_peers`."""
        self._count(FULL)
        if trio.current_time() >= self._warned + WARNING_SECONDS:
            self._warned = trio.current_time()
            log.warning("gossip.connections_full", limit=self._network.connection_config.max_connections)


async def _speaks(stream: Any) -> bool:
    """Wait for the first byte, which a dialer sends at once; return whether it came."""
    with trio.move_on_after(FIRST_BYTE_SECONDS) as scope:
        await trio.lowlevel.wait_readable(stream.stream.socket)
    return not scope.cancelled_caught
