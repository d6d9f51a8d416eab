"""The network service over libp2p: announcements by GossipSub, bodies by digest, peers kept connected.

What decides stands apart, without I/O: `pubsub.validator`, `reputation`, `peers.rate_limit`, `peers.ip_bans`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import trio

from node.config import GossipSettings
from node.identity import new_key
from node.identity.local_peer import address_of_peer
from node.machine.commands import FetchRollouts, GossipCommand, IntroduceNode, PublishRollouts
from node.machine.inputs import DoppelgangerDetected, NetworkChanged, RolloutsAnnounced
from node.network.host import Host, open_host
from node.network.libp2p_patches.repairs import check_version
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.peers.addresses import networks
from node.network.peers.peer_manager import PeerManager
from node.network.peers.peer_store import PeerStore
from node.network.peers.rate_limit import RateLimiter
from node.network.pubsub.announcer import sign_announcement
from node.network.pubsub.inbound_message import AcceptedAnnouncement, InboundMessage, rollouts_announced
from node.network.pubsub.own_announcements import OwnAnnouncements
from node.network.pubsub.topic import Topic, TopicSettings, Traffic, join
from node.network.pubsub.validator import AnnouncementValidator
from node.network.reputation import FLOOD, PeerReputation
from node.network.reqresp.body_exchange import BodyExchange
from node.network.reqresp.catch_up import CatchUp
from node.network.reqresp.fetcher import BodyFetcher
from node.network.reqresp.introductions import Introductions
from node.network.reqresp.upload_quota import UploadQuota
from node.ports.bodies import Bodies
from node.ports.network import RoundWindow
from node.ports.service import Report
from protocols.admission import MessageAcceptance, Slot
from protocols.identifiers import Address
from protocols.wire import NOTHING, announcements_topic

log = structlog.get_logger()

MAX_UNREPORTED = 1024
"""Accepted announcements that wait for the machine."""
INTRODUCE_SECONDS = 1.0


class Libp2pNetwork:
    """`node.ports.network.NetworkService` over libp2p. State lives here, so that a restart of `run` loses nothing.

    Raises `Refusal` for another version of libp2p than its repairs were made for.
    """

    name = "gossip"

    def __init__(
        self,
        settings: GossipSettings,
        member: SwarmMember,
        bodies: Bodies,
        callbacks: NetworkCallbacks,
        peer_store: Path,
    ) -> None:
        check_version()
        self._settings, self._member, self._bodies, self._callbacks = settings, member, bodies, callbacks
        self._me, self._limits = member.me, member.limits
        self._identity = new_key() if member.ephemeral_peer_id else member.me.network
        self._trusted_networks = networks(settings.trusted_networks)
        self._session = trio.CancelScope()
        self._validator = AnnouncementValidator(member.swarm, member.limits, member.me.domain)
        self._fetcher = BodyFetcher(
            self._validator, bodies, callbacks.check_body, member.limits.body, callbacks.has_positive_score
        )
        self._rate_limiter = RateLimiter()
        self._uploads = UploadQuota(settings.upload_bytes_per_second)
        self._peer_store = PeerStore(peer_store)
        self._reputation = PeerReputation(self._peer_store)
        self.connections: Counter[str] = Counter()
        self._own = OwnAnnouncements()
        self._publish = trio.Event()
        self._introducing = False
        self._accepted_in, self._accepted_out = trio.open_memory_channel[AcceptedAnnouncement](MAX_UNREPORTED)
        self._forward_in, self._forward_out = trio.open_memory_channel[object](math.inf)
        self._host: Host | None = None
        self._listen: tuple[str, ...] = tuple(settings.listen)

    @property
    def counters(self) -> Counter[str]:
        """Announcements, bodies and faults of peers by reason, since the process began."""
        return self._validator.counters

    @property
    def addresses(self) -> tuple[str, ...]:
        """The actual listen addresses, ending in /p2p/ID; empty while the service is down."""
        return self._host.addresses if self._host else ()

    def peer_id(self, address: Address) -> str | None:
        """Return the peer id of a registered node that has announced something in the rounds that are accepted."""
        return self._validator.peer_id(address)

    # --- commands and the window --------------------------------------------------------------------------------

    async def execute(self, command: GossipCommand) -> None:
        """Take a command over: announcements go out as soon as there is a mesh, fetches are queued."""
        match command:
            case FetchRollouts():
                self._fetcher.enqueue(command)
            case IntroduceNode():
                self._introducing = True
            case PublishRollouts():
                self._announce(command)

    def update_window(self, window: RoundWindow) -> None:
        """Take the machine's new view; early announcements that it admits are taken in and forwarded."""
        first = self._validator.window is None
        self._introducing = self._introducing and self._me.address not in window.peers
        for accepted in self._validator.move(window):
            if self._take(accepted) and accepted.message.handle is not None:
                self._forward_in.send_nowait(accepted.message.handle)
        self._own.keep(self._validator.is_current)
        if first:
            self._publish.set()

    def _announce(self, asked: PublishRollouts) -> None:
        """Sign and queue an announcement. A second body for the same slot would be equivocation: it is refused, or the
        first one announced again."""
        slot = Slot(peer=self._me.address, round=asked.round, stage=asked.stage, seed=asked.seed)
        command = self._callbacks.admit_announcement(asked, self._validator.announced(slot))
        if command is None:
            self._count("own-equivocation")
            return
        body = b"" if command.body == NOTHING else self._bodies.get(command.body)
        if body is None:
            log.error("gossip.own_body_missing", round=command.round, stage=command.stage, body=command.body.hex())
            self._count("own-body-missing")
        elif self._validator.announced(slot) not in (None, command.body):
            log.error("gossip.own_equivocation_refused", round=command.round, stage=command.stage)
            self._count("own-equivocation")
        else:
            attached = self._callbacks.attach_messages(command.attached)
            data = sign_announcement(self._me, self._member.swarm, self._limits, command, body, attached)
            self._own.add(slot, data)
            self._validator.validate(InboundMessage(data=data, origin=self._me.address))
            self._publish.set()

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self, report: Report) -> None:
        """Listen, gossip and fetch until cancelled. Raises `HostListenError` where no address can be bound."""
        while True:
            with trio.CancelScope() as self._session:
                await self._serve(report)

    def switch_identity(self) -> None:
        """Go on under this node's own peer id.

        Until then a node with an ephemeral peer id has one that it made up. Peers keep one connection per peer id:
        under its own the node would disconnect a second node with its key, or be disconnected by it, instead of
        hearing it.
        """
        self._identity = self._me.network
        self._session.cancel()

    async def _serve(self, report: Report) -> None:
        async with self._open() as (host, peer_manager):
            exchange = BodyExchange(host, self._bodies, self._count, self._uploads)
            catch_up = CatchUp(host, self._validator, self._limits.announcement, self._uploads)
            introductions = Introductions(host, self._me, self._callbacks.introduction, self._count, report)
            name = announcements_topic(self._member.swarm, self._member.manifest_digest)
            topics = {name: TopicSettings(self._limits.announcement, self._validate)}
            async with join(host, topics, Traffic(self._allow, self._hear)) as joined:
                topic = joined[name]
                await host.listen(self._listen)
                self._begin(host)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(peer_manager.run)
                        nursery.start_soon(self._report_accepted, report)
                        nursery.start_soon(self._forward_queued, topic)
                        nursery.start_soon(self._send_own, topic)
                        nursery.start_soon(self._watch_subscribers, topic, report)
                        nursery.start_soon(catch_up.run, topic.subscribers, self._take_answer)
                        nursery.start_soon(self._introduce, introductions, topic)
                        nursery.start_soon(self._fetcher.run, exchange, topic.subscribers, report)
                finally:
                    self._host = None

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[Host, PeerManager]]:
        settings = self._settings
        async with open_host(self._identity, settings.announce, settings.max_peers) as host:
            host.report_fault, host.accepts_ip = self._report_fault, self._accepts_ip
            host.accepts_peer, host.count_connection = self._accepts_peer, self._count_connection
            peer_manager = PeerManager(
                host,
                self._peer_store,
                bootnodes=self._callbacks.bootnodes,
                max_peers=settings.max_peers,
                ping_seconds=settings.ping_seconds,
                per_network=settings.peers_per_network,
                trusted=self._trusted_networks,
            )
            peer_manager.add_bootnodes(settings.bootnodes)
            yield host, peer_manager

    def _begin(self, host: Host) -> None:
        """Keep the ports that were bound, so that a restarted service is found under its old addresses."""
        self._host = host
        self._listen = tuple(address.rpartition("/p2p/")[0] for address in host.addresses)
        self._own.publish_again()
        self._publish.set()
        log.info("gossip.started", peer_id=host.peer_id, addresses=host.announced)

    # --- faults of peers ----------------------------------------------------------------------------------------

    def _count(self, reason: str) -> None:
        self.counters[reason] += 1

    def _report_fault(self, peer: str, reason: str) -> None:
        self._count(reason)
        self._penalise(peer, reason)

    def _penalise(self, peer: str, reason: str) -> None:
        ip = self._host.remote_ip(peer) if self._host else None
        outcome = self._reputation.record_fault(peer, reason, ip, time.time())
        if outcome.newly_banned:
            log.warning("gossip.peer_banned", peer=peer, reason=reason)
        if outcome.disconnect and self._host is not None:
            self._host.disconnect(peer)

    def _accepts_ip(self, ip: str) -> bool:
        if self._reputation.is_ip_banned(ip, time.time()):
            self._count("ip-banned")
            return False
        return True

    def _accepts_peer(self, peer: str) -> bool:
        return not self._peer_store.is_banned(peer, time.time())

    def _count_connection(self, event: str) -> None:
        self.connections[event] += 1

    def _allow(self, peer: str, size: int) -> bool:
        return self._within(self._rate_limiter.allows(peer, size, trio.current_time(), trusted=self._trusts(peer)))

    def _hear(self, peer: str) -> bool:
        return self._within(self._rate_limiter.hears(peer, trio.current_time(), trusted=self._trusts(peer)))

    def _within(self, within: bool) -> bool:
        if not within:
            self._count("rate-limit")
        return within

    def _trusts(self, peer: str) -> bool:
        address = address_of_peer(peer)
        return address is not None and self._callbacks.has_positive_score(address)

    # --- announcements in ---------------------------------------------------------------------------------------

    def _validate(self, forwarder: str, data: bytes, origin: str, handle: object) -> MessageAcceptance:
        """Validate a message of the topic: synchronous, below a millisecond, so nothing queues behind it."""
        return self._validate_from(forwarder, InboundMessage(data=data, origin=address_of_peer(origin), handle=handle))

    def _take_answer(self, peer: str, data: bytes) -> None:
        """Validate an announcement that this node has asked a peer for."""
        self._validate_from(peer, InboundMessage(data=data, origin=None, late=True))

    def _validate_from(self, forwarder: str, message: InboundMessage) -> MessageAcceptance:
        result = self._validator.validate(message)
        fault = self._reputation.fault_of(forwarder, result, late=message.late)
        if result.is_useless and not message.late:
            self._rate_limiter.count_useless(forwarder, trio.current_time(), trusted=self._trusts(forwarder))
        if fault == FLOOD:
            self._report_fault(forwarder, fault)
        elif fault:
            self._penalise(forwarder, fault)
        if result.accepted is not None and not self._take(result.accepted):
            return MessageAcceptance.IGNORE
        return result.acceptance

    def _take(self, accepted: AcceptedAnnouncement) -> bool:
        try:
            self._accepted_in.send_nowait(accepted)
        except trio.WouldBlock:
            self._validator.withdraw(accepted)
            return False
        return True

    async def _report_accepted(self, report: Report) -> None:
        while True:
            await report(self._input_of(await self._accepted_out.receive()))

    def _input_of(self, accepted: AcceptedAnnouncement) -> RolloutsAnnounced | DoppelgangerDetected:
        announcement = accepted.announcement
        if accepted.peer == self._me.address:
            return DoppelgangerDetected(announcement.round, announcement.stage, announcement.seed, announcement.body)
        return rollouts_announced(accepted)

    # --- announcements out --------------------------------------------------------------------------------------

    async def _introduce(self, introductions: Introductions, topic: Topic) -> None:
        """While this node is not registered, show its delegation to all subscribers, again and again."""
        while True:
            await trio.sleep(INTRODUCE_SECONDS)
            if self._introducing:
                await introductions.send(topic.subscribers())

    async def _send_own(self, topic: Topic) -> None:
        """Publish what is unsent as soon as the mesh has a peer."""
        while True:
            await self._publish.wait()
            self._publish = trio.Event()
            while self._own.has_unsent():
                if topic.mesh_size() == 0:
                    await trio.sleep(0.1)
                    continue
                await topic.publish(self._own.next_unsent())
                self._count("published")

    async def _forward_queued(self, topic: Topic) -> None:
        while True:
            await topic.forward(await self._forward_out.receive())

    async def _watch_subscribers(self, topic: Topic, report: Report) -> None:
        """Report the number of connected subscribers when it changes; after a time alone, announce everything again."""
        reported, was_connected = -1, False
        while True:
            count = len(topic.subscribers())
            if count != reported:
                if reported == 0 and was_connected:
                    self._own.publish_again()
                    self._publish.set()
                was_connected = was_connected or count > 0
                reported = count
                await report(NetworkChanged(count))
            await trio.sleep(0.5)
