"""The peer manager: bootnodes, dialling with back-off, peer exchange, pings, and disconnecting the unresponsive."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
import structlog
import trio
from libp2p.abc import INetStream

from node.backoff import Backoff
from node.network.host import Host
from node.network.peers.addresses import (
    BadAddress,
    Networks,
    host_of,
    network_key,
    seen_from,
    split_address,
)
from node.network.peers.ip_diversity import surplus_peers
from node.network.peers.loop_lag import BEAT_SECONDS, LoopLag
from node.network.peers.peer_sampling import may_be_told, network_group, sample_to_tell, spread
from node.network.peers.peer_store import PeerStore
from node.network.reputation import IP_COLOCATION
from node.network.reqresp.streams import StreamFault, StreamLostError, read_frame, write_frame

log = structlog.get_logger()

PEERS_PROTOCOL = "/swarm/peers/1"
PEERS_FRAME = 16 << 10
MAX_PEERS_SHARED = 32
TARGET_PEERS = 12
"""Connections to keep: GossipSub's upper mesh degree. Inbound ones may exceed it up to max_peers."""
MIN_OUTBOUND = 4
"""Connections that this node has dialled, however many have come in: inbound ones can't take all places."""
MAX_PER_NETWORK = 8
"""Connections with one /24 or /64: fewer than `TARGET_PEERS`, so that no network provides all of a node's peers."""
MAX_DIALS = 3
DIAL_BACKOFF = Backoff(first=1.0, longest=15.0)
"""Between two attempts to dial a peer, a quarter more or less. A network that was parted heals within a stage: the few
peers that are dialled at a time cost little."""
STEADY_SECONDS = 10.0
"""A connection that lasted this long resets the back-off: a peer that hangs up is not dialled every second."""
BOOTNODE_SECONDS, FIRST_BOOTNODE_SECONDS = 60.0, 5.0
"""Between two looks at the contract for bootnodes, and while none is known."""
EXCHANGE_SECONDS = 20.0
MISSED_PINGS = 2
SAVE_SECONDS = 2.0

Bootnodes = Callable[[], Awaitable[Sequence[str]]]

_addresses = msgspec.msgpack.Decoder(list[str])


class PeerManager:
    """The connections of one host."""

    def __init__(
        self,
        host: Host,
        peer_store: PeerStore,
        *,
        bootnodes: Bootnodes,
        max_peers: int,
        ping_seconds: float,
        target_peers: int = TARGET_PEERS,
        per_network: int = MAX_PER_NETWORK,
        trusted: Networks = (),
    ) -> None:
        self._host, self._peer_store, self._bootnodes = host, peer_store, bootnodes
        self._max_peers, self._ping_seconds = max_peers, ping_seconds
        self._target_peers = min(target_peers, max_peers)
        self._per_network, self._trusted = per_network, trusted
        self._configured_bootnodes: tuple[str, ...] = ()
        self._bootnode_addresses: dict[str, tuple[str, ...]] = {}
        self._dials: dict[str, int] = {}
        self._next_dial: dict[str, float] = {}
        self._address_turns: dict[str, int] = {}
        self._watched: set[str] = set()
        self._dialling: set[str] = set()
        self._dialled: set[str] = set()
        self._dice = random.Random()
        self.lag = LoopLag()
        self.unresponsive = 0
        host.serve(PEERS_PROTOCOL, self._answer_peers)

    async def run(self) -> None:
        """Dial, exchange, ping and save until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat_loop)
            nursery.start_soon(self._bootnode_loop)
            nursery.start_soon(self._dial_loop, nursery)
            nursery.start_soon(self._watch_loop, nursery)
            nursery.start_soon(self._exchange_loop)
            nursery.start_soon(self._save_loop)

    async def _beat_loop(self) -> None:
        """Measure how late the loop wakes up: overload must not be taken for silence of others."""
        while True:
            due = trio.current_time() + BEAT_SECONDS
            await trio.sleep_until(due)
            self.lag.beat(trio.current_time() - due, trio.current_time())

    # --- bootnodes ----------------------------------------------------------------------------------------------

    async def _bootnode_loop(self) -> None:
        while True:
            self._use_bootnodes(await self._bootnodes())
            await trio.sleep(BOOTNODE_SECONDS if self._bootnode_addresses else FIRST_BOOTNODE_SECONDS)

    def add_bootnodes(self, addresses: Sequence[str]) -> None:
        """Dial these whenever connections are missing; malformed ones are logged and left out."""
        self._configured_bootnodes += tuple(addresses)
        self._use_bootnodes(())

    def _use_bootnodes(self, named: Sequence[str]) -> None:
        """Take the configured bootnodes and those that the contract names now; forget others."""
        self._bootnode_addresses = {}
        for text in (*self._configured_bootnodes, *named):
            try:
                transport, peer = split_address(text)
            except BadAddress as error:
                log.warning("gossip.bootnode_malformed", reason=str(error))
                continue
            known = self._bootnode_addresses.get(peer, ())
            if transport not in known and peer != self._host.peer_id:
                self._bootnode_addresses[peer] = (*known, transport)

    # --- dialling -----------------------------------------------------------------------------------------------

    async def _dial_loop(self, nursery: trio.Nursery) -> None:
        while True:
            for peer, addresses in self._due():
                self._dialling.add(peer)
                nursery.start_soon(self._dial, peer, addresses)
            await trio.sleep(0.5)

    def _due(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return the peers to dial now, never more than are missing: bootnodes, then others spread over networks."""
        connected = set(self._host.connected())
        self._dialled &= connected
        outbound = min(MIN_OUTBOUND, self._target_peers) - len(self._dialled)
        missing = max(self._target_peers - len(connected), outbound) - len(self._dialling)
        room = max(0, min(missing, MAX_DIALS - len(self._dialling)))
        if not room or (connected and self.lag.is_late(trio.current_time())):
            return []  # a handshake costs more than all that a connection saves a node that is too busy already
        candidates = dict(self._bootnode_addresses)
        known = self._peer_store.dialable(time.time())
        for peer, addresses in spread(known, lambda entry: network_group(entry[1][0]), self._dice):
            candidates[peer] = (*candidates.get(peer, ()), *addresses)
        now, counts = trio.current_time(), self._network_counts(connected)
        due = [
            (peer, addresses)
            for peer, addresses in candidates.items()
            if peer != self._host.peer_id
            and peer not in connected
            and peer not in self._dialling
            and self._next_dial.get(peer, 0.0) <= now
            and (peer in self._bootnode_addresses or not self._is_full(counts, host_of(addresses[0])))
        ]
        return due[:room]

    def _network_counts(self, peers: Iterable[str]) -> Counter[str]:
        """Return how many of the peers are in each network that is not trusted."""
        found = Counter(network_key(self._host.remote_ip(peer), self._trusted) for peer in peers)
        del found[""]
        return found

    def _is_full(self, counts: Counter[str], ip: str | None) -> bool:
        """Return True if no further peer of an address's network is wanted: many peer ids on one address are cheap."""
        return counts[network_key(ip, self._trusted)] >= self._per_network

    async def _dial(self, peer: str, addresses: tuple[str, ...]) -> None:
        turn = self._address_turns[peer] = self._address_turns.get(peer, -1) + 1
        transport = addresses[turn % len(addresses)]
        try:
            connected = await self._host.connect(transport, peer)
        finally:
            self._dialling.discard(peer)
        if connected:
            self._dialled.add(peer)
            self._peer_store.mark_connected(peer, time.time(), transport)
            self._address_turns[peer] = turn - 1
        dials = self._dials[peer] = self._dials.get(peer, 0) + 1
        self._next_dial[peer] = trio.current_time() + DIAL_BACKOFF.pause(dials) * random.uniform(0.75, 1.25)
        self._bound_backoff_tables()

    def _bound_backoff_tables(self) -> None:
        """Keep the back-off tables from growing without end."""
        if len(self._next_dial) > 4096:
            self._next_dial.clear()
            self._dials.clear()
            self._address_turns.clear()

    # --- liveness -----------------------------------------------------------------------------------------------

    async def _watch_loop(self, nursery: trio.Nursery) -> None:
        """Start watching each new peer; disconnect banned ones and those above the limits."""
        while True:
            now, connected = time.time(), self._host.connected()
            surplus = self._surplus(connected)
            counts = self._network_counts(peer for peer in connected if peer in self._watched)
            for peer in connected:
                new, network = peer not in self._watched, network_key(self._host.remote_ip(peer), self._trusted)
                if self._peer_store.is_banned(peer, now) or peer in surplus:
                    self._host.disconnect(peer)
                elif new and counts[network] >= self._per_network:
                    self._host.report_fault(peer, IP_COLOCATION)
                    self._host.disconnect(peer)
                elif new:
                    counts[network] += bool(network)
                    self._watched.add(peer)
                    nursery.start_soon(self._watch, peer)
            await trio.sleep(0.5)

    def _surplus(self, connected: Sequence[str]) -> set[str]:
        """Return the inbound peers to disconnect so that no more than `max_peers` stay."""
        inbound = [(peer, self._host.remote_ip(peer) or "") for peer in connected if peer not in self._dialled]
        return set(surplus_peers(inbound, max(0, self._max_peers - len(connected) + len(inbound))))

    async def _watch(self, peer: str) -> None:
        """Exchange addresses, then ping until the peer is gone or unresponsive."""
        log.info("gossip.peer_connected", peer=peer)
        self._peer_store.mark_connected(peer, time.time())
        began, missed = trio.current_time(), 0
        try:
            await self._ask_peers(peer)
            while peer in self._host.connected() and missed < MISSED_PINGS:
                await trio.sleep(self._ping_seconds * random.uniform(0.8, 1.2))
                answered = await self._host.ping(peer, self._ping_seconds * 2)
                if answered or not self.lag.is_late(trio.current_time()):
                    missed = 0 if answered else missed + 1
            if trio.current_time() - began > STEADY_SECONDS:
                self._dials.pop(peer, None)
                self._next_dial.pop(peer, None)
            if missed:
                self._drop_unresponsive(peer)
        finally:
            self._watched.discard(peer)
            log.info("gossip.peer_disconnected", peer=peer)

    def _drop_unresponsive(self, peer: str) -> None:
        """Disconnect a peer that does not answer, and let others have their turn before it is dialled again."""
        if peer in self._host.connected():
            self.unresponsive += 1
            log.warning("gossip.peer_unresponsive", peer=peer)
            self._host.disconnect(peer)
        self._next_dial[peer] = trio.current_time() + 2 * self._ping_seconds

    # --- peer exchange ------------------------------------------------------------------------------------------

    async def _exchange_loop(self) -> None:
        """While too few are connected, ask one of them for more."""
        while True:
            connected = self._host.connected()
            if connected and len(connected) < self._target_peers:
                await self._ask_peers(random.choice(connected))
            await trio.sleep(EXCHANGE_SECONDS if len(connected) > 2 else EXCHANGE_SECONDS / 10)

    async def _ask_peers(self, peer: str) -> None:
        """Give a peer this node's addresses and learn some of those it knows."""
        try:
            async with self._host.request(peer, PEERS_PROTOCOL) as stream:
                await write_frame(stream, msgspec.msgpack.encode(self._host.announced))
                others = _decode(await read_frame(stream, PEERS_FRAME))
        except (StreamFault, StreamLostError) as error:
            # Not held against the peer: another implementation may not speak this protocol and still be useful.
            log.debug("gossip.exchange_failed", peer=peer, reason=str(error))
            return
        teller = self._host.remote_ip(peer)
        for other, transport in others:
            if other != self._host.peer_id and may_be_told(transport, teller):
                self._peer_store.add_addresses(other, [transport])

    async def _answer_peers(self, peer: str, stream: INetStream) -> None:
        asked = _decode(await read_frame(stream, PEERS_FRAME))
        remote = self._host.remote_ip(peer)
        if remote is not None:
            own = [seen_from(transport, remote) for other, transport in asked if other == peer]
            self._peer_store.add_addresses(peer, [each for each in own if may_be_told(each, remote)][:2])
        await write_frame(stream, msgspec.msgpack.encode(self._addresses_for(peer)))

    def _addresses_for(self, peer: str) -> list[str]:
        """Return addresses of a random sample of the peers that this node has been connected to."""
        known = [each for each in self._peer_store.tellable(time.time()) if each.peer != peer]
        told = sample_to_tell(known, MAX_PEERS_SHARED, self._dice)
        return [f"{each.transport}/p2p/{each.peer}" for each in told]

    async def _save_loop(self) -> None:
        try:
            while True:
                await trio.sleep(SAVE_SECONDS)
                self._peer_store.save()
        finally:
            self._peer_store.save()


def _decode(frame: bytes) -> list[tuple[str, str]]:
    """Return (peer id, transport address) of every well-formed address in a frame. Raises `StreamFault`."""
    try:
        texts = _addresses.decode(frame)[:MAX_PEERS_SHARED]
    except (ValueError, RecursionError) as error:
        raise StreamFault("stream-schema") from error
    found = []
    for text in texts:
        try:
            transport, peer = split_address(text)
        except BadAddress:
            continue
        found.append((peer, transport))
    return found
