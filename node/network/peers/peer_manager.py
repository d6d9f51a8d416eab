"""Keeping in touch: bootnodes, dialling with back-off for ever, peer exchange, pings, and cutting the frozen."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
import structlog
import trio
from libp2p.abc import INetStream

from node.network.host import Host
from node.network.peers.addresses import (
    BadAddress,
    Networks,
    host_of,
    is_unspecified,
    neighbourhood,
    seen_from,
    split_address,
)
from node.network.peers.ip_bans import surplus
from node.network.peers.peer_store import PeerStore
from node.network.reqresp.streams import StreamFault, read_frame, write_frame

log = structlog.get_logger()

PEERS_PROTOCOL = "/swarm/peers/1"
PEERS_FRAME = 16 << 10
PEERS_TOLD = 32
WANTED = 12
"""Connections that are striven for: GossipSub's upper mesh degree. Inbound ones may exceed it up to max_peers."""
OUTBOUND = 4
"""Connections that this node has chosen itself, however many have come in: strangers can't fill all places."""
PER_NETWORK = 8
"""Connections with one /24 or /64: fewer than are striven for, so that no single network is all of a node's peers."""
DIALS_AT_ONCE = 3
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
STEADY_SECONDS = 10.0
"""A connection that lasted this long resets the back-off: a peer that hangs up on us is not dialled every second."""
BOOTNODE_SECONDS = 60.0
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
        book: PeerStore,
        *,
        bootnodes: Bootnodes,
        max_peers: int,
        ping_seconds: float,
        wanted: int = WANTED,
        per_network: int = PER_NETWORK,
        trusted: Networks = (),
    ) -> None:
        self._host, self._book, self._bootnodes = host, book, bootnodes
        self._max_peers, self._ping_seconds, self._wanted = max_peers, ping_seconds, min(wanted, max_peers)
        self._per_network, self._trusted = per_network, trusted
        self._first_resort: dict[str, tuple[str, ...]] = {}
        self._pauses: dict[str, float] = {}
        self._next_dial: dict[str, float] = {}
        self._turns: dict[str, int] = {}
        self._watched: set[str] = set()
        self._dialling: set[str] = set()
        self._dialled: set[str] = set()
        self.frozen = 0
        host.serve(PEERS_PROTOCOL, self._answer_peers)

    async def run(self) -> None:
        """Dial, exchange, ping and save until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._learn_bootnodes)
            nursery.start_soon(self._dial_for_ever, nursery)
            nursery.start_soon(self._watch_new, nursery)
            nursery.start_soon(self._exchange_for_ever)
            nursery.start_soon(self._save_for_ever)

    # --- bootnodes ----------------------------------------------------------------------------------------------

    async def _learn_bootnodes(self) -> None:
        while True:
            try:
                self.add_bootnodes(await self._bootnodes())
            except Exception as error:  # noqa: BLE001 - task boundary: the chain behind it may be away
                log.warning("gossip.bootnodes_unknown", reason=f"{type(error).__name__}: {error}"[:200])
            await trio.sleep(BOOTNODE_SECONDS if self._first_resort else FIRST_PAUSE * 5)

    def add_bootnodes(self, addresses: Sequence[str]) -> None:
        """Dial these whenever connections are wanted; malformed ones are logged and left out."""
        for text in addresses:
            try:
                transport, peer = split_address(text)
            except BadAddress as error:
                log.warning("gossip.bootnode_malformed", reason=str(error))
                continue
            known = self._first_resort.get(peer, ())
            if transport not in known and peer != self._host.peer_id:
                self._first_resort[peer] = (*known, transport)

    # --- dialling -----------------------------------------------------------------------------------------------

    async def _dial_for_ever(self, nursery: trio.Nursery) -> None:
        while True:
            for peer, addresses in self._due():
                self._dialling.add(peer)
                nursery.start_soon(self._dial, peer, addresses)
            await trio.sleep(0.5)

    def _due(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return whom to dial now: bootnodes first, then the book, never more than the missing connections."""
        connected = set(self._host.connected())
        self._dialled &= connected
        outbound = min(OUTBOUND, self._wanted) - len(self._dialled)
        missing = max(self._wanted - len(connected), outbound) - len(self._dialling)
        candidates = dict(self._first_resort)
        for peer, addresses in self._book.dialable(time.time()):
            candidates[peer] = (*candidates.get(peer, ()), *addresses)
        now, met = trio.current_time(), self._met_networks(connected)
        due = [
            (peer, addresses)
            for peer, addresses in candidates.items()
            if peer != self._host.peer_id
            and peer not in connected
            and peer not in self._dialling
            and self._next_dial.get(peer, 0.0) <= now
            and (peer in self._first_resort or not self._is_crowded(met, host_of(addresses[0])))
        ]
        return due[: max(0, min(missing, DIALS_AT_ONCE - len(self._dialling)))]

    def _met_networks(self, peers: Iterable[str]) -> Counter[str]:
        """Return how many of the peers are in each network that is not trusted."""
        found = Counter(neighbourhood(self._host.remote_ip(peer), self._trusted) for peer in peers)
        del found[""]
        return found

    def _is_crowded(self, met: Counter[str], ip: str | None) -> bool:
        """Tell whether no further peer of an address's network is wanted: many names on one address are cheap."""
        return met[neighbourhood(ip, self._trusted)] >= self._per_network

    async def _dial(self, peer: str, addresses: tuple[str, ...]) -> None:
        turn = self._turns[peer] = self._turns.get(peer, -1) + 1
        transport = addresses[turn % len(addresses)]
        try:
            connected = await self._host.connect(transport, peer)
        finally:
            self._dialling.discard(peer)
        if connected:
            self._dialled.add(peer)
            self._book.met(peer, time.time(), transport)
            self._turns[peer] = turn - 1
        pause = self._pauses[peer] = min(self._pauses.get(peer, FIRST_PAUSE / 2) * 2, LONGEST_PAUSE)
        self._next_dial[peer] = trio.current_time() + pause * random.uniform(0.75, 1.25)
        self._forget_surplus()

    def _forget_surplus(self) -> None:
        """Keep the back-off tables no larger than the book that feeds them."""
        if len(self._next_dial) > 4096:
            self._next_dial.clear()
            self._pauses.clear()
            self._turns.clear()

    # --- liveness -----------------------------------------------------------------------------------------------

    async def _watch_new(self, nursery: trio.Nursery) -> None:
        """Give each connected peer a watcher; turn away the banned and what exceeds the limits."""
        while True:
            now, connected = time.time(), self._host.connected()
            away = self._surplus(connected)
            met = self._met_networks(peer for peer in connected if peer in self._watched)
            for peer in connected:
                new, network = peer not in self._watched, neighbourhood(self._host.remote_ip(peer), self._trusted)
                if self._book.is_banned(peer, now) or peer in away:
                    self._host.cut(peer)
                elif new and met[network] >= self._per_network:
                    self._host.blame(peer, "crowded")
                    self._host.cut(peer)
                elif new:
                    met[network] += bool(network)
                    self._watched.add(peer)
                    nursery.start_soon(self._watch, peer)
            await trio.sleep(0.5)

    def _surplus(self, connected: Sequence[str]) -> set[str]:
        """Return whom to turn away so that no more than the most stay: of those that came in, not of those dialled."""
        strangers = [(peer, self._host.remote_ip(peer) or "") for peer in connected if peer not in self._dialled]
        return set(surplus(strangers, max(0, self._max_peers - len(connected) + len(strangers))))

    async def _watch(self, peer: str) -> None:
        """Exchange addresses, then ping until the peer is gone or frozen."""
        log.info("gossip.peer_connected", peer=peer)
        self._book.met(peer, time.time())
        began, missed = trio.current_time(), 0
        try:
            await self._ask_peers(peer)
            while peer in self._host.connected() and missed < MISSED_PINGS:
                await trio.sleep(self._ping_seconds * random.uniform(0.8, 1.2))
                missed = 0 if await self._host.ping(peer, self._ping_seconds * 2) else missed + 1
                if self._host.hoards(peer):
                    self._host.blame(peer, "hoard")
                    missed = MISSED_PINGS
            if trio.current_time() - began > STEADY_SECONDS:
                self._pauses.pop(peer, None)
                self._next_dial.pop(peer, None)
            if missed:
                self._give_up(peer)
        finally:
            self._watched.discard(peer)
            log.info("gossip.peer_gone", peer=peer)

    def _give_up(self, peer: str) -> None:
        """Cut a peer that does not answer and let others have their turn before it is dialled again."""
        if peer in self._host.connected():
            self.frozen += 1
            log.warning("gossip.peer_frozen", peer=peer)
            self._host.cut(peer)
        self._next_dial[peer] = trio.current_time() + 2 * self._ping_seconds

    # --- peer exchange ------------------------------------------------------------------------------------------

    async def _exchange_for_ever(self) -> None:
        """While too few are connected, ask somebody for more."""
        while True:
            connected = self._host.connected()
            if connected and len(connected) < self._wanted:
                await self._ask_peers(random.choice(connected))
            await trio.sleep(EXCHANGE_SECONDS if len(connected) > 2 else EXCHANGE_SECONDS / 10)

    async def _ask_peers(self, peer: str) -> None:
        """Tell a peer our addresses and learn some of those it knows."""
        try:
            async with self._host.request(peer, PEERS_PROTOCOL) as stream:
                await write_frame(stream, msgspec.msgpack.encode(self._host.announced))
                told = _decode(await read_frame(stream, PEERS_FRAME))
        except Exception as error:  # noqa: BLE001 - a peer of another make does not speak this; it may still be useful
            log.debug("gossip.exchange_failed", peer=peer, error=type(error).__name__)
            return
        for other, transport in told:
            if other != self._host.peer_id and not is_unspecified(transport):
                self._book.hear(other, [transport])

    async def _answer_peers(self, peer: str, stream: INetStream) -> None:
        asked = _decode(await read_frame(stream, PEERS_FRAME))
        remote = self._host.remote_ip(peer)
        if remote is not None:
            own = [seen_from(transport, remote) for other, transport in asked if other == peer]
            self._book.hear(peer, own[:2])
        await write_frame(stream, msgspec.msgpack.encode(self._known_to(peer)))

    def _known_to(self, peer: str) -> list[str]:
        """Return addresses of connected peers, then of others met, at most `PEERS_TOLD`."""
        connected = set(self._host.connected())
        known = [entry for entry in self._book.dialable(time.time()) if entry[0] != peer]
        known.sort(key=lambda entry: entry[0] not in connected)
        met = [entry for entry in known if self._book.get(entry[0]).seen]
        return [f"{addresses[0]}/p2p/{other}" for other, addresses in met[:PEERS_TOLD]]

    async def _save_for_ever(self) -> None:
        try:
            while True:
                await trio.sleep(SAVE_SECONDS)
                self._book.save()
        finally:
            self._book.save()


def _decode(frame: bytes) -> list[tuple[str, str]]:
    """Return (peer id, transport address) of every well-formed address in a frame. Raises `StreamFault`."""
    try:
        texts = _addresses.decode(frame)[:PEERS_TOLD]
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
