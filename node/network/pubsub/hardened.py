"""py-libp2p 0.8.1 with its defects repaired: nothing that a peer sends may end Pubsub, the router or the host.

Each override says what it works round. The rest of the node sees `AnnouncementTopic` in `node.network.pubsub.topic`
only.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, Literal, cast

import libp2p.crypto.serialization
import libp2p.network.connection.swarm_connection
import libp2p.pubsub.gossipsub
import libp2p.pubsub.pubsub
import trio
from google.protobuf.message import DecodeError
from libp2p.abc import IHost, INetStream
from libp2p.crypto.keys import KeyType
from libp2p.crypto.rsa import RSAPublicKey
from libp2p.io.exceptions import MessageTooLarge
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.utils import safe_bytes_from_hex
from libp2p.pubsub.validators import signature_validator

from node.identity.rsa import EXPONENT, MAX_BITS, MIN_BITS
from node.network.libp2p_patches import yamux as muxing
from node.network.libp2p_patches.log_throttle import connection_log
from node.network.peers.ip_bans import pruned
from node.network.pubsub.iwant_limit import MOST_WANTED, IwantLimit
from node.network.pubsub.rpc_frames import RpcFrames

log = logging.getLogger("libp2p.swarm")

FRAME_LIMIT = 1 << 20
"""Bytes of one RPC between peers, both ways: go-libp2p's default."""
OUTBOUND_FRAMES = 128
"""RPCs queued per peer before it counts as too slow."""
RECORD_SECONDS = 10.0
SEEN_MESSAGES = 16_384
EQUIVOCATION_DIGESTS = 20_000
CHOSEN_IN_MESH = 3
"""Mesh peers that this node has dialled, where there are as many: half of the degree, as GossipSub 1.1 bounds it."""
TOLD_LEAST, TOLD_SHARE = 6, 0.25
"""How many peers outside of the mesh are told with each heartbeat what there is: GossipSub 1.1's D_lazy and factor."""

Judgement = Literal["accept", "hold", "drop"]
Judge = Callable[[ID, rpc_pb2.Message], Judgement]
"""Decides, without waiting, what becomes of a correctly signed message from a forwarder."""
Blame = Callable[[ID, str], None]
"""Counts a fault of a connected peer under its reason code."""


class SeenMessages:
    """Message ids, bounded by number; the library's own cache is bounded by time only and starts a thread."""

    def __init__(self, most: int) -> None:
        self._ids: OrderedDict[bytes, None] = OrderedDict()
        self._most = most

    def has(self, message: bytes) -> bool:
        """Tell whether the id was added and not yet pushed out by newer ones."""
        return message in self._ids

    def add(self, message: bytes) -> bool:
        """Remember an id; tell whether it is new."""
        fresh = message not in self._ids
        self._ids[message] = None
        if len(self._ids) > self._most:
            self._ids.popitem(last=False)
        return fresh

    def stop(self) -> None:
        """Do nothing: there is no thread to stop."""


class SafeGossipSub(GossipSub):
    """GossipSub with bounded memory and a heartbeat that no peer can stop."""

    overflow: Callable[[ID], None]

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self._wanted = IwantLimit()

    async def handle_iwant(self, iwant_msg: rpc_pb2.ControlIWant, sender_peer_id: ID) -> None:
        """Send what is wanted, within bounds. The library copies a message as often as its id stands there: a frame of
        ids became half a gigabyte."""
        decoded = map(safe_bytes_from_hex, islice(iwant_msg.messageIDs, MOST_WANTED))
        ids = self._wanted.take(sender_peer_id, filter(None, decoded), self.mcache.msgs, FRAME_LIMIT)
        if ids:
            wanted = rpc_pb2.ControlIWant(messageIDs=[each.hex().encode() for each in ids])
            await super().handle_iwant(wanted, sender_peer_id)

    def gossip_heartbeat(self) -> defaultdict[ID, dict[str, list[bytes]]]:
        """Tell peers outside of the mesh which messages there are. The library leaves those in back-off out: whom the
        mesh has just lost would hear nothing for 15 s, and no message is told of for longer than 3."""
        told: defaultdict[ID, dict[str, list[bytes]]] = defaultdict(dict)
        assert self.pubsub is not None
        for topic, mesh in self.mesh.items():
            recent, listening = self.mcache.window(topic), self.pubsub.peer_topics.get(topic, ())
            if recent and listening:
                most = max(TOLD_LEAST, int(TOLD_SHARE * (len(listening) - len(mesh))))
                for peer in self._get_in_topic_gossipsub_peers_from_minus(topic, most, mesh):
                    told[peer][topic] = recent
        return told

    def _perform_opportunistic_grafting(self, topic: str, peers_to_graft: defaultdict[ID, list[str]]) -> int:
        """Have some peers in the mesh that this node has chosen itself. The library would graft any two more with every
        heartbeat, for all have the score 0 here, until it prunes half of them again."""
        mesh = self.mesh[topic]
        others = self._get_in_topic_gossipsub_peers_from_minus(topic, FRAME_LIMIT, mesh, backoff_check=True)
        chosen = [peer for peer in others if self._is_chosen(peer)]
        lacking = max(0, CHOSEN_IN_MESH - sum(map(self._is_chosen, mesh)))
        grafted = random.sample(chosen, min(lacking, len(chosen)))
        for peer in grafted:
            mesh.add(peer)
            peers_to_graft[peer].append(topic)
        return len(grafted)

    def _select_peers_for_pruning(self, topic: str, num_to_prune: int) -> list[ID]:
        """Prune by where peers come from; the library would take any, for all have the score 0 here."""
        peers = {str(peer): peer for peer in self.mesh[topic]}
        mesh = [(name, self._address(peer)) for name, peer in random.sample(list(peers.items()), len(peers))]
        chosen = {name for name, peer in peers.items() if self._is_chosen(peer)}
        return [peers[name] for name in pruned(mesh, chosen, len(mesh) - num_to_prune, CHOSEN_IN_MESH)]

    def _connection(self, peer: ID) -> Any:
        stream = self.pubsub.peers.get(peer) if self.pubsub else None
        return stream.muxed_conn if stream else None

    def _is_chosen(self, peer: ID) -> bool:
        connection = self._connection(peer)
        return connection is not None and bool(connection.is_initiator)

    def _address(self, peer: ID) -> str:
        connection = self._connection(peer)
        remote = connection.get_remote_address() if connection is not None else None
        return str(remote[0]) if remote else ""

    async def heartbeat(self) -> None:
        """Keep the heartbeat going: an exception in it (odd peer state) would end the router."""
        while True:
            try:
                await super().heartbeat()
            except Exception as error:  # noqa: BLE001 - task boundary: the mesh must be maintained whatever happened
                log.warning("heartbeat failed: %r", error)
                await trio.sleep(self.heartbeat_interval)

    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:
        """Keep digests: the library keeps whole messages."""
        table: dict[bytes, Any] = self.equivocation_detection
        known = msg.from_id + msg.seqno
        digest = hashlib.blake2b(msg.data, digest_size=16).digest()
        if len(table) > EQUIVOCATION_DIGESTS:
            for old in list(table)[: EQUIVOCATION_DIGESTS // 2]:
                del table[old]
        return bool(table.setdefault(known, digest) == digest)

    def _periodic_security_cleanup(self) -> None:
        """Runs with every heartbeat: drop the delivery times that only adaptive gossip, switched off here, would trim,
        and renew streams."""
        super()._periodic_security_cleanup()
        self.recent_message_deliveries.clear()
        self._wanted.forget(self.mcache.msgs)
        if isinstance(self.pubsub, SafePubsub):
            self.pubsub.renew_dead_streams()

    def _handle_dropped_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, reason: str) -> None:
        super()._handle_dropped_rpc(peer_id, rpc, reason)
        if reason == "queue_full":
            self.overflow(peer_id)


class SafePubsub(Pubsub):
    """Pubsub that isolates every message and every peer. Messages are judged once, synchronously, before forwarding.

    `admit` tells whether a frame of so many messages and bytes is taken from a peer: bytes are counted before decoding.
    """

    admit: Callable[[ID, int, int], bool] = staticmethod(lambda peer, messages, size: True)

    def __init__(self, host: IHost, router: SafeGossipSub, topic: str, data_limit: int, judge: Judge, blame: Blame):
        super().__init__(host, router, max_inbound_rpc_size=FRAME_LIMIT, allowed_topics={topic})
        self.seen_messages._stop_event.set()
        self.seen_messages = cast(Any, SeenMessages(SEEN_MESSAGES))
        self._topic, self._data_limit, self._judge, self._blame = topic, data_limit, judge, blame

    async def run(self) -> None:
        """Isolate the tasks that the library starts per peer and message: one exception there would end them all."""
        isolate_tasks(self.manager)
        await super().run()

    async def _handle_new_peer(self, peer_id: ID) -> None:
        self._renew(peer_id)
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None:
            queue._queue.max_size = OUTBOUND_FRAMES
            queue.max_message_size = FRAME_LIMIT

    def renew_dead_streams(self) -> None:
        """Give up outbound streams whose connection is gone: the library keeps such a stream, and skips the peer as
        "already registered", when the peer is back (or has another connection) before it has noticed."""
        for peer in list(self.peers):
            if self._renew(peer) and self._peer_is_connected(peer):
                self._schedule_peer_stream_retry(peer)

    def _renew(self, peer: ID) -> bool:
        """Drop a dead outbound stream; the subscriptions, which came on the peer's own stream, stay."""
        stream = self.peers.get(peer)
        if stream is None or not cast(Any, stream.muxed_conn).event_shutting_down.is_set():
            return False
        del self.peers[peer]
        queue = self.peer_queues.pop(peer, None)
        if queue is not None:
            queue.close()
        self.router.remove_peer(peer)
        return True

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Let one writer at a time use a stream: replay and queue task would interleave their frames."""
        lock = stream.__dict__.setdefault("_swarm_write_lock", trio.Lock())
        async with lock:
            return bool(await super().write_msg(stream, rpc_msg))

    async def stream_handler(self, stream: INetStream) -> None:
        """Read RPCs until the stream ends; the library lets an undecodable one end the whole service."""
        peer = stream.muxed_conn.peer_id
        try:
            await self._read(stream, peer)
        except StreamEOF:
            return
        except MessageTooLarge:
            self._blame(peer, "frame-size")
        except DecodeError:
            self._blame(peer, "frame")
        except Exception as error:  # noqa: BLE001 - task boundary: a broken stream concerns this peer only
            log.debug("stream of %s failed: %r", peer, error)
        with trio.CancelScope(shield=True), trio.move_on_after(2):
            await stream.reset()
        self._handle_dead_peer(peer)

    async def _read(self, stream: INetStream, peer: ID) -> None:
        frames = RpcFrames(stream, FRAME_LIMIT)
        while self.manager.is_running:
            frame = await frames.next()
            if not self.admit(peer, 0, len(frame)):
                continue
            rpc = rpc_pb2.RPC()
            rpc.ParseFromString(frame)
            if rpc.publish and not self.admit(peer, len(rpc.publish), 0):
                del rpc.publish[:]
            await self._take(rpc, peer)

    async def _take(self, rpc: rpc_pb2.RPC, peer: ID) -> None:
        for message in rpc.publish:
            await isolated(self.push_msg)(peer, message)
        if len(rpc.subscriptions) > self.max_subscriptions_per_rpc:
            self._blame(peer, "subscriptions")
        else:
            for subscription in rpc.subscriptions:
                self.handle_subscription(peer, subscription)
        if rpc.HasField("control"):
            try:
                await self.router.handle_rpc(rpc, peer)
            except Exception as error:  # noqa: BLE001 - task boundary: control that the router can't digest is dropped
                self._blame(peer, "control")
                log.debug("control of %s failed: %r", peer, error)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Judge a message and forward it. An id counts as seen only once its signature holds: otherwise anybody could
        take the id of a message that is still under way."""
        own = self.my_id
        if msg_forwarder != own:
            if self._is_msg_seen(msg) or msg.from_id == own.to_bytes():
                return
            fault = self._fault(msg)
            if fault:
                self._blame(msg_forwarder, fault)
                return
        self._mark_msg_seen(msg)
        if msg_forwarder == own or self._judge(msg_forwarder, msg) == "accept":
            await self.forward(msg_forwarder, msg)

    async def forward(self, forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Send a judged message on; used again for one that was held."""
        await self.router.publish(forwarder, msg)

    def _fault(self, msg: rpc_pb2.Message) -> str:
        if list(msg.topicIDs) != [self._topic]:
            return "topic"
        if len(msg.data) > self._data_limit:
            return "size"
        if len(msg.seqno) > 64 or len(msg.key) > 1024:
            return "schema"
        try:
            return "" if signature_validator(msg) else "unsigned"
        except Exception:  # noqa: BLE001 - the library raises whatever its key parsers raise
            return "unsigned"


def isolated(work: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return `work` with its exceptions logged instead of raised."""

    async def run(*arguments: Any) -> None:
        try:
            await work(*arguments)
        except Exception as error:  # noqa: BLE001 - task boundary: the library runs this for one peer
            log.warning("%s failed: %r", getattr(work, "__name__", work), error)

    return run


def isolate_tasks(manager: Any) -> None:
    """Make a service's manager start every task isolated: the library ends a whole service with any of its tasks."""
    start = manager.run_task

    def run_task(work: Callable[..., Awaitable[None]], *arguments: Any, **options: Any) -> None:
        start(isolated(work), *arguments, **options)

    manager.run_task = run_task


_library_keys: Any = libp2p.crypto.serialization
_library_pubsub: Any = libp2p.pubsub.pubsub
_library_router: Any = libp2p.pubsub.gossipsub
_library_connection: Any = libp2p.network.connection.swarm_connection
_build_record = _library_router.env_to_send_in_RPC


def _ignore_record(msg: rpc_pb2.RPC, host: IHost, peer_id: ID) -> bool:
    """Take no addresses from RPCs (`node.network.peers.peer_manager` exchanges them). The library verifies the same
    record with every RPC of a peer, and drops the whole RPC where identify has brought a newer one."""
    return True


def _own_record(host: IHost) -> tuple[bytes, bool]:
    """Build this host's record once in 10 s: every building parses all listen addresses again."""
    kept: tuple[float, bytes] | None = host.__dict__.get("_swarm_record")
    if kept is None or trio.current_time() - kept[0] > RECORD_SECONDS:
        kept = host.__dict__["_swarm_record"] = (trio.current_time(), _build_record(host)[0])
    return kept[1], False


def _bounded_rsa(data: bytes) -> RSAPublicKey:
    """Take no RSA key whose check would last: a stranger's exponent may have 4096 bits, which is 40 ms a check."""
    key = RSAPublicKey.from_bytes(data)
    if key.impl.e != EXPONENT or not MIN_BITS <= key.impl.size_in_bits() <= MAX_BITS:
        raise ValueError(f"an RSA key of {key.impl.size_in_bits()} bits with an exponent of {key.impl.e.bit_length()}")
    return key


def install() -> None:
    """Patch what can't be overridden: records are cached, RSA keys have bounds, nothing logs to the root; and yamux."""
    _library_keys.key_type_to_public_key_deserializer[KeyType.RSA.value] = _bounded_rsa
    for module in (_library_pubsub, _library_router):
        module.maybe_consume_signed_record = _ignore_record
        module.env_to_send_in_RPC = _own_record
    muxing.install()
    _library_connection.logging = connection_log()
