"""py-libp2p's Pubsub with its defects repaired; `node.network.libp2p_patches.repairs` lists them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import IHost, INetStream
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import signature_validator
from typing_extensions import override

from node.frames import FrameTooLargeError
from node.network.libp2p_patches.tasks import isolate_tasks, isolated
from node.network.pubsub.control_limits import bounded_control
from node.network.pubsub.router import FRAME_LIMIT, SafeGossipSub
from node.network.pubsub.rpc_frames import RpcFrames
from node.network.pubsub.seen_messages import SeenMessages
from protocols.admission import MessageAcceptance

log = logging.getLogger("libp2p.swarm")

OUTBOUND_QUEUE_SIZE = 256
"""RPCs queued per peer before it counts as too slow."""
MAX_SEEN_MESSAGES = 16_384
MIN_FRAME_COST = 256
"""Bytes that even the smallest frame counts for: what it costs is to be decoded and handled."""
RESET_SECONDS = 2.0
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.02, 1.0
"""How long a peer's stream is not read for each of its messages that is not heard, and at most."""

MessageValidator = Callable[[ID, rpc_pb2.Message], MessageAcceptance]
"""Decides, without waiting, what becomes of a correctly signed message from a forwarder."""
ReportFault = Callable[[ID, str], None]
"""Called with a connected peer and the reason code of its fault."""
AllowFrame = Callable[[ID, int], bool]
"""The rate limiter: called with a peer and a number of bytes; False drops them."""
HearPeer = Callable[[ID], bool]
"""The rate limiter: called with a peer that forwards a message; False drops the message."""


class TopicRule(NamedTuple):
    """What applies to the messages of a topic: the limit of their data in bytes, and their validator."""

    data_limit: int
    validate: MessageValidator


class SafePubsub(Pubsub):
    """Pubsub that isolates every message and every peer.

    Each message is validated once, synchronously, before it is forwarded. `allow` is asked for the bytes of a frame
    before it is decoded, `hear` for each message, before its signature is checked; who is not heard is read slowly.
    """

    def __init__(
        self,
        host: IHost,
        router: SafeGossipSub,
        topics: Mapping[str, TopicRule],
        report_fault: ReportFault,
        allow: AllowFrame = lambda peer, size: True,
        hear: HearPeer = lambda peer: True,
    ) -> None:
        super().__init__(host, router, max_inbound_rpc_size=FRAME_LIMIT, allowed_topics=set(topics))
        self.seen_messages._stop_event.set()
        self.seen_messages = cast(Any, SeenMessages(MAX_SEEN_MESSAGES))
        self._topics, self._report_fault, self._allow, self._hear = topics, report_fault, allow, hear
        self._write_locks: WeakKeyDictionary[INetStream, trio.Lock] = WeakKeyDictionary()
        router.on_heartbeat = self.renew_dead_streams

    @override
    async def run(self) -> None:
        """Isolate the tasks that the library starts per peer and message."""
        isolate_tasks(self.manager)
        await super().run()

    # --- streams to peers ---------------------------------------------------------------------------------------

    @override
    async def _handle_new_peer(self, peer_id: ID) -> None:
        self._drop_dead_stream(peer_id)
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None:
            queue._queue.max_size = OUTBOUND_QUEUE_SIZE
            queue.max_message_size = FRAME_LIMIT

    def renew_dead_streams(self) -> None:
        """Open a new stream to each peer that is still connected but whose outbound stream's connection is gone."""
        for peer in list(self.peers):
            if self._drop_dead_stream(peer) and self._peer_is_connected(peer):
                self._schedule_peer_stream_retry(peer)

    def _drop_dead_stream(self, peer: ID) -> bool:
        """Forget a dead outbound stream; the subscriptions, which came on the peer's own stream, stay."""
        stream = self.peers.get(peer)
        if stream is None or not cast(Any, stream.muxed_conn).event_shutting_down.is_set():
            return False
        del self.peers[peer]
        queue = self.peer_queues.pop(peer, None)
        if queue is not None:
            queue.close()
        self.router.remove_peer(peer)
        return True

    @override
    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Let one writer at a time use a stream."""
        async with self._write_locks.setdefault(stream, trio.Lock()):
            return bool(await super().write_msg(stream, rpc_msg))

    # --- streams from peers -------------------------------------------------------------------------------------

    @override
    async def stream_handler(self, stream: INetStream) -> None:
        """Read RPCs until the stream ends."""
        peer = stream.muxed_conn.peer_id
        try:
            await self._read(stream, peer)
        except StreamEOF:
            return
        except FrameTooLargeError:
            self._report_fault(peer, "frame-size")
        except DecodeError:
            self._report_fault(peer, "frame")
        except Exception as error:  # noqa: BLE001 - task boundary: a broken stream concerns this peer only
            log.debug("stream of %s failed: %r", peer, error)
        with trio.CancelScope(shield=True), trio.move_on_after(RESET_SECONDS):
            await stream.reset()
        self._handle_dead_peer(peer)

    async def _read(self, stream: INetStream, peer: ID) -> None:
        frames = RpcFrames(stream, FRAME_LIMIT)
        while self.manager.is_running:
            frame = await frames.next()
            if not self._allow(peer, max(len(frame), MIN_FRAME_COST)):
                continue
            rpc = rpc_pb2.RPC()
            rpc.ParseFromString(frame)
            await self._handle(rpc, peer)

    async def _handle(self, rpc: rpc_pb2.RPC, peer: ID) -> None:
        await self._take_messages(rpc.publish, peer)
        if len(rpc.subscriptions) > self.max_subscriptions_per_rpc:
            self._report_fault(peer, "subscriptions")
        else:
            for subscription in rpc.subscriptions:
                self.handle_subscription(peer, subscription)
        if rpc.HasField("control"):
            await self._handle_control(rpc, peer)

    async def _take_messages(self, messages: Sequence[rpc_pb2.Message], peer: ID) -> None:
        """Take messages of a peer that is heard. For those that are dropped its next frame waits: a flood that is only
        dropped would cost nobody but this node."""
        unheard = 0
        for message in messages:
            if self._hear(peer):
                await isolated(self.push_msg)(peer, message)
            else:
                unheard += 1
        if unheard:
            await trio.sleep(min(MAX_PAUSE_SECONDS, unheard * PAUSE_SECONDS))

    async def _handle_control(self, rpc: rpc_pb2.RPC, peer: ID) -> None:
        bounded = bounded_control(rpc.control, self._topics)
        if bounded.is_flood:
            self._report_fault(peer, "control-flood")
        if not await isolated(self.router.handle_rpc, logging.DEBUG)(rpc_pb2.RPC(control=bounded.control), peer):
            self._report_fault(peer, "control")

    # --- messages -----------------------------------------------------------------------------------------------

    @override
    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Validate a message, and forward it where it is accepted.

        An id counts as seen only once its signature holds: otherwise anybody could take the id of a message that is
        still on its way.
        """
        own = self.my_id
        if msg_forwarder != own:
            if self._is_msg_seen(msg) or msg.from_id == own.to_bytes():
                return
            fault = self._fault(msg)
            if fault:
                self._report_fault(msg_forwarder, fault)
                return
        self._mark_msg_seen(msg)
        if msg_forwarder == own or self._validate(msg_forwarder, msg) is MessageAcceptance.ACCEPT:
            await self.forward(msg_forwarder, msg)

    def _validate(self, forwarder: ID, msg: rpc_pb2.Message) -> MessageAcceptance:
        return self._topics[msg.topicIDs[0]].validate(forwarder, msg)

    async def forward(self, forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Forward a valid message; used again for one that was queued."""
        await self.router.publish(forwarder, msg)

    def _fault(self, msg: rpc_pb2.Message) -> str:
        rule = self._topics.get(msg.topicIDs[0]) if len(msg.topicIDs) == 1 else None
        if rule is None:
            return "topic"
        if len(msg.data) > rule.data_limit:
            return "size"
        if len(msg.seqno) > 64 or len(msg.key) > 1024:
            return "schema"
        try:
            return "" if signature_validator(msg) else "unsigned"
        except Exception:  # noqa: BLE001 - the library's boundary: it raises whatever its key parsers raise
            return "unsigned"
