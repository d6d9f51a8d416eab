"""A libp2p host (TCP, noise, yamux) that no peer can bring down, with what the library lacks: ping and a hard
disconnect."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import structlog
import trio
from libp2p import new_host
from libp2p.abc import INetStream, ISecureConn, ISecureTransport
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.crypto.serialization import deserialize_private_key
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IOException
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.exceptions import RawConnError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.exceptions import SecurityUpgradeFailure
from multiaddr import Multiaddr

from node.identity import NodeKey
from node.identity.rsa import RsaIdentity
from node.network.inbound import PEER_BANNED, InboundConnections
from node.network.libp2p_patches.log_throttle import install_log_throttle
from node.network.libp2p_patches.repairs import install
from node.network.libp2p_patches.tasks import isolate_tasks, isolated
from node.network.reqresp.streams import (
    IDLE,
    TIMEOUT,
    StreamFault,
    closing,
    request,
)

log = structlog.get_logger()

IDENTIFY_PUSH_PROTOCOL = "/ipfs/id/push/1.0.0"
YAMUX_PING = struct.pack("!BBHII", 0, 2, 1, 0, 0)
"""A frame of yamux: version 0, type PING, flag SYN, stream 0, any value."""
RECEIVE_WINDOW = "receive-window"
"""Fault of a peer that sent more than any receive window allows."""
DIAL_SECONDS = 12.0
CLOSE_SECONDS = 2.0
StreamHandler = Callable[[str, INetStream], Awaitable[None]]
"""Serves one stream of the named peer; an exception ends that stream only."""


class HostListenError(OSError):
    """None of the listen addresses could be bound."""


class Host:
    """A running host. Peers are named by their peer id as text.

    `report_fault` is told of a peer's faults by reason. `accepts_ip` and `accepts_peer` decide who may connect: the
    first before the handshake, the second as soon as it has shown who the peer is. `count_connection` counts what
    becomes of inbound connections (`node.network.inbound`).
    """

    def __init__(self, identity: NodeKey | RsaIdentity, announce: Sequence[str], max_peers: int) -> None:
        keys = _key_pair(identity)
        config = ConnectionConfig(
            min_connections=0, low_watermark=0, high_watermark=max_peers, max_connections=max_peers + 8
        )
        self.inner = cast(
            Any,
            new_host(
                key_pair=keys,
                sec_opt=_noise_only(keys),
                muxer_opt={TProtocol(YAMUX): Yamux},
                connection_config=config,
                disable_identify_address_discovery=True,
            ),
        )
        self.peer_id = identity.peer_id
        self.report_fault: Callable[[str, str], None] = lambda peer, reason: None
        self.accepts_ip: Callable[[str], bool] = lambda address: True
        self.accepts_peer: Callable[[str], bool] = lambda peer: True
        self.count_connection: Callable[[str], None] = lambda event: None
        self._announce = tuple(announce)
        self._network = self.inner.get_network()
        self._network.retry_config = RetryConfig(max_retries=0)
        self._network.set_stream_handler(isolated(self.inner._swarm_stream_handler))
        # Peers exchange addresses in a protocol of their own. A push of a thousand addresses costs 23 ms here, and any
        # peer may send as many as it likes.
        self.inner.remove_stream_handler(TProtocol(IDENTIFY_PUSH_PROTOCOL))
        inbound = InboundConnections(
            self._network, lambda address: self.accepts_ip(address), lambda event: self.count_connection(event)
        )
        self._network._handle_inbound_connection = inbound.handle
        self._network.report_window_exceeded = lambda peer: self.report_fault(peer, RECEIVE_WINDOW)
        upgrader = self._network.upgrader
        upgrader.upgrade_security = self._only_accepted(upgrader.upgrade_security)
        self.inner._identify_task_entry = isolated(self.inner._identify_task_entry)

    def _only_accepted(self, upgrade: Callable[..., Awaitable[ISecureConn]]) -> Callable[..., Awaitable[ISecureConn]]:
        """Ask `accepts_peer` between the security handshake and the muxer: a refused peer gets no stream.

        Only of peers that dial in: a banned peer may still be dialled, since this node chooses whom.
        """

        async def upgrade_security(raw_conn: Any, is_initiator: bool, peer_id: ID | None = None) -> ISecureConn:
            secured = await upgrade(raw_conn, is_initiator, peer_id)
            if not is_initiator and not self.accepts_peer(str(secured.get_remote_peer())):
                self.count_connection(PEER_BANNED)
                await secured.close()
                raise SecurityUpgradeFailure("a banned peer")
            return secured

        return upgrade_security

    async def listen(self, addresses: Sequence[str]) -> None:
        """Bind the listen addresses (multiaddrs). Raises `HostListenError` where none can be."""
        free = [address for address in map(Multiaddr, addresses) if not _is_taken(address)]
        if addresses and not (free and await self._network.listen(*free)):
            raise HostListenError(
                f"can't listen on {', '.join(addresses)}: in use or not this machine's; set gossip.listen"
            )

    async def close_sockets(self) -> None:
        """Close every socket, also when cancelled: those that listen, and those that were dialled.

        The library leaves them open then. A host that takes the port over would lose every other dial to a socket that
        nobody answers, and peers would keep connections that nobody reads.
        """
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
            for listener in list(self._network.listeners.values()):
                await listener.close()
            for connection in self._network.get_connections():
                await trio.aclose_forcefully(_stream(connection))

    @property
    def addresses(self) -> tuple[str, ...]:
        """The listen addresses with their actual ports, as multiaddrs that end in /p2p/ID."""
        return tuple(f"{address}/p2p/{self.peer_id}" for address in self.inner.get_transport_addrs())

    @property
    def announced(self) -> tuple[str, ...]:
        """The addresses given to other peers: the configured ones, else the listen addresses."""
        return tuple(_with_peer(text, self.peer_id) for text in self._announce) or self.addresses

    def connected(self) -> list[str]:
        """Return the peers with a live connection."""
        return [str(peer) for peer, all_of in self._network.get_connections_map().items() if _live(all_of)]

    def remote_ip(self, peer: str) -> str | None:
        """Return the IP address under which a connected peer is seen."""
        for connection in self._network.get_connections(ID.from_string(peer)):
            remote = connection.muxed_conn.get_remote_address()
            if remote is not None:
                return str(remote[0])
        return None

    async def connect(self, transport: str, peer: str) -> bool:
        """Dial one address; return True if the peer is connected afterwards."""
        target = ID.from_string(peer)
        self._network.unblock_peer(target)
        self.inner.get_peerstore().clear_addrs(target)
        with trio.move_on_after(DIAL_SECONDS):
            try:
                await self.inner.connect(PeerInfo(target, [Multiaddr(transport)]))
            except Exception as error:  # noqa: BLE001 - the library's boundary: a dial fails with anything
                log.debug("gossip.dial_failed", peer=peer, address=transport, error=type(error).__name__)
        return peer in self.connected()

    async def ping(self, peer: str, seconds: float) -> bool:
        """Return True if the peer's muxer answers in time.

        A ping of yamux, not one over a stream: twelve bytes each way instead of a negotiation, answered before anything
        that the peer has in its streams. So it tells who is gone, not who is busy.
        """
        for connection in self._network.get_connections(ID.from_string(peer)):
            muxed = connection.muxed_conn
            answered = muxed._ping_event = trio.Event()
            with trio.move_on_after(seconds):
                try:
                    await muxed._write_frame(YAMUX_PING)
                except (IOException, RawConnError, trio.ClosedResourceError, trio.BrokenResourceError) as error:
                    log.debug("gossip.ping_failed", peer=peer, reason=type(error).__name__)
                    return False
                await answered.wait()
                return True
        return False

    def disconnect(self, peer: str) -> None:
        """Close the peer's sockets below the library, which waits for an unresponsive peer to read when it closes."""
        for connection in self._network.get_connections(ID.from_string(peer)):
            wire = _stream(connection).socket
            try:
                wire.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                log.debug("gossip.already_closed", peer=peer, error=error.strerror)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer streams of a protocol. A fault ends its stream and is reported; it never ends the host."""

        async def run(stream: INetStream) -> None:
            peer = str(stream.muxed_conn.peer_id)
            try:
                async with closing(stream):
                    await handler(peer, stream)
            except StreamFault as fault:
                self.report_fault(peer, IDLE if fault.code == TIMEOUT else fault.code)
            except Exception as error:  # noqa: BLE001 - task boundary: a stream's error concerns this stream only
                log.debug("gossip.stream_failed", peer=peer, protocol=protocol, error=type(error).__name__)

        self.inner.set_stream_handler(TProtocol(protocol), run)

    def request(self, peer: str, protocol: str) -> Any:
        """Return an async context manager with a stream to a connected peer."""
        return request(self.inner, ID.from_string(peer), protocol)


@asynccontextmanager
async def open_host(identity: NodeKey | RsaIdentity, announce: Sequence[str], max_peers: int) -> AsyncIterator[Host]:
    """Run a host that does not listen yet: its handlers must be in place before the first peer arrives."""
    install_log_throttle()
    install()
    host = Host(identity, announce, max_peers)
    async with host.inner.run([]):
        isolate_tasks(host.inner.get_network().manager)
        try:
            yield host
        finally:
            await host.close_sockets()


def _key_pair(identity: NodeKey | RsaIdentity) -> KeyPair:
    if isinstance(identity, NodeKey):
        return create_new_key_pair(identity.secret)
    private = deserialize_private_key(identity.stored)
    return KeyPair(private, private.get_public_key())


def _noise_only(identity: KeyPair) -> dict[TProtocol, ISecureTransport]:
    """By default the library also accepts plain text, where anybody may claim any peer id."""
    return {TProtocol(NOISE): NoiseTransport(identity, noise_privkey=create_noise_key().private_key)}


def _is_taken(address: Multiaddr) -> bool:
    """Return True if a TCP address can't be bound.

    The library binds with SO_REUSEPORT: two nodes on one port would both seem to listen, and each get half of the
    other's dials.
    """
    parts = {protocol.name: value for protocol, value in address.items()}
    host, port = parts.get("ip4") or parts.get("ip6"), int(parts.get("tcp") or 0)
    if host is None or port == 0:
        return False
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _with_peer(address: str, peer: str) -> str:
    return address if "/p2p/" in address else f"{address}/p2p/{peer}"


def _live(connections: Sequence[Any]) -> bool:
    return any(not connection.is_closed for connection in connections)


def _stream(connection: Any) -> trio.SocketStream:
    """Return trio's stream under a connection: secure session, noise, raw connection, the library's TCP stream."""
    noise = connection.muxed_conn.secured_conn.conn
    stream: trio.SocketStream = noise.conn.stream.stream
    return stream
