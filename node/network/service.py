"""The gossip service: announcements by GossipSub, bodies by digest, peers kept in touch with."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio

from node.config import GossipSettings
from node.identity import new_key
from node.identity.local_peer import LocalPeer, address_of_peer
from node.machine.commands import FetchRollouts, GossipCommand, IntroduceNode, PublishRollouts
from node.machine.inputs import DoppelgangerDetected, NetworkChanged, RolloutsAnnounced
from node.network.host import Host, open_host
from node.network.peers.addresses import networks
from node.network.peers.ip_bans import IpBans
from node.network.peers.peer_manager import PeerManager
from node.network.peers.peer_store import PeerStore
from node.network.peers.rate_limit import RateLimiter
from node.network.pubsub.announcer import Carry, signed_announcement
from node.network.pubsub.hardened import Judgement
from node.network.pubsub.topic import AnnouncementTopic, join
from node.network.pubsub.validator import (
    CULPABLE,
    AcceptedAnnouncement,
    AnnouncementValidator,
    InboundMessage,
    announced,
    is_unwanted,
)
from node.network.reqresp.body_exchange import BodyExchange
from node.network.reqresp.catch_up import CatchUp
from node.network.reqresp.fetcher import BodyFetcher
from node.network.reqresp.introductions import Introduction, Introductions
from node.network.reqresp.streams import IDLE, SHORT, SLOW
from node.ports import Bodies, CheckBody, Report, RoundWindow
from protocols.admission import Slot
from protocols.identifiers import Address, Digest
from protocols.manifest import Limits
from protocols.wire import NOTHING

log = structlog.get_logger()

ANNOUNCEMENTS_WAITING = 1024
CATCHUP_SECONDS = 15.0
INTRODUCE_SECONDS = 1.0
FLOOD_SECONDS, DROPPED_AT_MOST = 10.0, 200
"""How many announcements that came to nothing a peer may bring in a time: even an honest one brings some. Those that
this node's own lag brings to nothing do not count: `node.network.peers.rate_limit` and an answer's limits bound
them."""
PENALTIES = {"slow": 0.0, "crowded": 0.0, SLOW: 0.0, IDLE: 2.0, SHORT: 2.0, "swarm": 5.0, "subscriptions": 5.0}
PENALTY = 10.0
"""Points for a fault whose reason is not in `PENALTIES`; `node.network.peers.peer_store` has the limit. Slowness
alone bans nobody (`node.network.peers.request_backoff`); what a busy or killed peer leaves behind, streams that are
idle or end early, by the dozen."""


class NetworkService:
    """`node.ports.GossipService` over libp2p. State lives here, so that a restart of `run` loses nothing.

    `me` is this node, `carry` gives the signed messages that an announcement carries, `introduction` its delegation,
    `reward_valid_body` tells who has proven good: such peers may send more, and their bodies are fetched first.
    """

    name = "gossip"

    def __init__(
        self,
        settings: GossipSettings,
        me: LocalPeer,
        limits: Limits,
        swarm: Digest,
        bodies: Bodies,
        check: CheckBody,
        peer_book: Path,
        bootnodes: Callable[[], Awaitable[Sequence[str]]],
        *,
        carry: Carry = lambda commands: (),
        introduction: Introduction = lambda: None,
        credit: Callable[[Address], bool] = lambda address: False,
        incognito: bool = False,
    ) -> None:
        self._name = new_key() if incognito else me.network
        self._session = trio.CancelScope()
        self._settings, self._me, self._limits, self._swarm = settings, me, limits, swarm
        self._bodies, self._bootnodes = bodies, bootnodes
        self._carry, self._introduction, self._credit = carry, introduction, credit
        self._quotas, self._trusted = RateLimiter(), networks(settings.trusted_networks)
        self._newcomer = False
        self._book = PeerStore(peer_book)
        self._doors = IpBans()
        self._intake = AnnouncementValidator(swarm, limits, me.domain)
        self._fetching = BodyFetcher(self._intake, bodies, check, limits.body, credit)
        self._own: dict[Slot, bytes] = {}
        self._unsent: dict[Slot, bytes] = {}
        self._publish = trio.Event()
        self._accepted_in, self._accepted_out = trio.open_memory_channel[AcceptedAnnouncement](ANNOUNCEMENTS_WAITING)
        self._released_in, self._released_out = trio.open_memory_channel[Any](math.inf)
        self._dropped: Counter[str] = Counter()
        self._host: Host | None = None
        self._listening: tuple[str, ...] = tuple(settings.listen)

    @property
    def counters(self) -> Counter[str]:
        """Announcements, bodies and faults of peers by reason, since the process began."""
        return self._intake.counters

    @property
    def addresses(self) -> tuple[str, ...]:
        """The actual listen addresses, ending in /p2p/ID; empty while the service is down."""
        return self._host.addresses if self._host else ()

    @property
    def window(self) -> RoundWindow | None:
        """What the validator goes by."""
        return self._intake.window

    def peer_id(self, address: Address) -> str | None:
        """Return the peer id of a registered node that has announced something in the rounds that are accepted."""
        return self._intake.peer_id(address)

    # --- commands and the window --------------------------------------------------------------------------------

    async def execute(self, command: GossipCommand) -> None:
        """Take a command over: announcements go out as soon as somebody listens, fetches are queued."""
        match command:
            case FetchRollouts():
                self._fetching.want(command)
            case IntroduceNode():
                self._newcomer = True
            case PublishRollouts():
                self._announce(command)

    def update_window(self, window: RoundWindow) -> None:
        """Take the machine's new view; announcements that were held for it are taken in and sent on."""
        first = self._intake.window is None
        self._newcomer = self._newcomer and self._me.address not in window.peers
        for accepted in self._intake.move(window):
            if self._take_in(accepted) and accepted.heard.carrier is not None:
                self._released_in.send_nowait(accepted.heard.carrier)
        self._own = {slot: data for slot, data in self._own.items() if self._intake.is_current(slot)}
        self._unsent = {slot: data for slot, data in self._unsent.items() if slot in self._own}
        if first:
            self._publish.set()

    def _announce(self, command: PublishRollouts) -> None:
        """Sign and queue an announcement. A second body for the same slot would convict this node: it is refused."""
        slot = Slot(peer=self._me.address, round=command.round, stage=command.stage, seed=command.seed)
        said = self._intake.announced(slot)
        body = b"" if command.body == NOTHING else self._bodies.get(command.body)
        if body is None:
            log.error("gossip.body_missing", round=command.round, stage=command.stage, body=command.body.hex())
            self.counters["own-missing"] += 1
        elif said not in (None, command.body):
            log.error("gossip.second_body_refused", round=command.round, stage=command.stage)
            self.counters["own-equivocation"] += 1
        else:
            carried = self._carry(command.attached)
            data = signed_announcement(self._me, self._swarm, self._limits, command, body, carried)
            self._own[slot] = self._unsent[slot] = data
            self._intake.judge(InboundMessage(data=data, origin=self._me.address))
            self._publish.set()

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self, report: Report) -> None:
        """Listen, gossip and fetch until cancelled. Raises `ListenError` where no address can be bound."""
        while True:
            with trio.CancelScope() as self._session:
                await self._serve(report)

    def show_itself(self) -> None:
        """Go on under this node's own peer id.

        Until then an `incognito` node has one that it made up: peers keep one connection per peer id, so that under
        its own a node would cut off a twin, or be cut off by it, instead of hearing it.
        """
        self._name = self._me.network
        self._session.cancel()

    async def _serve(self, report: Report) -> None:
        settings = self._settings
        topic = f"/swarm/{self._swarm.hex()}/announcements/1"
        async with open_host(self._name, settings.announce, settings.max_peers) as host:
            host.blame, host.admits = self._blame, self._admits
            contacts = PeerManager(
                host,
                self._book,
                bootnodes=self._bootnodes,
                max_peers=settings.max_peers,
                ping_seconds=settings.ping_seconds,
                per_network=settings.peers_per_network,
                trusted=self._trusted,
            )
            contacts.add_bootnodes(settings.bootnodes)
            exchange = BodyExchange(host, self._bodies, self._count)
            catchup = CatchUp(host, self._intake, self._limits.announcement)
            introducing = Introductions(host, self._me, self._introduction, self._count, report)
            async with join(host, topic, self._limits.announcement, self._judge, self._admit) as mesh:
                await host.listen(self._listening)
                self._begin(host)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(contacts.run)
                        nursery.start_soon(self._forgive_floods)
                        nursery.start_soon(self._tell_announcements, report)
                        nursery.start_soon(self._send_released, mesh)
                        nursery.start_soon(self._send_own, mesh)
                        nursery.start_soon(self._watch_network, mesh, report)
                        nursery.start_soon(self._catch_up, catchup, mesh)
                        nursery.start_soon(self._introduce, introducing, mesh)
                        nursery.start_soon(self._fetching.run, exchange, mesh.subscribers, report)
                finally:
                    self._host = None

    def _begin(self, host: Host) -> None:
        """Keep the ports that were taken, so that a restarted service is found under its old addresses."""
        self._host = host
        self._listening = tuple(address.rpartition("/p2p/")[0] for address in host.addresses)
        self._unsent = dict(self._own)
        self._publish.set()
        log.info("gossip.started", peer_id=host.peer_id, addresses=host.announced)

    def _count(self, reason: str) -> None:
        self.counters[reason] += 1

    def _blame(self, peer: str, reason: str) -> None:
        self._count(reason)
        self._penalise(peer, reason)

    def _penalise(self, peer: str, reason: str) -> None:
        """Hold a fault against a peer; cut it when it is too slow or has done too much."""
        now = time.time()
        before = self._book.is_banned(peer, now)
        banned = before or self._book.penalise(peer, PENALTIES.get(reason, PENALTY), now)
        if banned and not before:
            log.warning("gossip.peer_banned", peer=peer, reason=reason)
            self._shut_door(peer)
        if self._host is not None and (banned or reason == "slow"):
            self._host.cut(peer)

    def _shut_door(self, peer: str) -> None:
        address = self._host.remote_ip(peer) if self._host else None
        if address is not None:
            self._doors.note_ban(address, time.time())

    def _admits(self, address: str) -> bool:
        """Tell whether a stranger at an address is let in."""
        if self._doors.is_shut(address, time.time()):
            self._count("door")
            return False
        return True

    # --- announcements in ---------------------------------------------------------------------------------------

    def _admit(self, peer: str, messages: int, size: int) -> bool:
        """Take a frame if its sender keeps to its quota; hold it against it where it does not."""
        address = address_of_peer(peer)
        known = address is not None and self._credit(address)
        if self._quotas.takes(peer, messages, size, trio.current_time(), known=known):
            return True
        self._blame(peer, "quota")
        return False

    def _judge(self, forwarder: str, data: bytes, origin: str, carrier: Any) -> Judgement:
        """The validator: synchronous, below a millisecond, so nothing queues behind it."""
        return self._hear(forwarder, InboundMessage(data=data, origin=address_of_peer(origin), carrier=carrier))

    def _hear(self, forwarder: str, heard: InboundMessage) -> Judgement:
        judged = self._intake.judge(heard)
        if is_unwanted(judged, heard):
            self._dropped[forwarder] += 1
        if judged.reason in CULPABLE:
            self._penalise(forwarder, judged.reason)
        elif self._dropped[forwarder] > DROPPED_AT_MOST:
            self._blame(forwarder, "flood")
        if judged.accepted is not None and not self._take_in(judged.accepted):
            return "drop"
        return "accept" if judged.accepted else "hold" if judged.outcome == "hold" else "drop"

    def _hear_late(self, sender: str, data: bytes) -> None:
        self._hear(sender, InboundMessage(data=data, origin=None, late=True))

    def _take_in(self, accepted: AcceptedAnnouncement) -> bool:
        try:
            self._accepted_in.send_nowait(accepted)
        except trio.WouldBlock:
            self._intake.forget(accepted)
            return False
        return True

    async def _tell_announcements(self, report: Report) -> None:
        while True:
            accepted = await self._accepted_out.receive()
            await report(self._heard(accepted))

    def _heard(self, accepted: AcceptedAnnouncement) -> RolloutsAnnounced | DoppelgangerDetected:
        said = accepted.said
        if accepted.peer == self._me.address:
            return DoppelgangerDetected(said.round, said.stage, said.seed, said.body)
        return announced(accepted)

    async def _forgive_floods(self) -> None:
        while True:
            await trio.sleep(FLOOD_SECONDS)
            self._dropped.clear()

    async def _catch_up(self, catchup: CatchUp, mesh: AnnouncementTopic) -> None:
        """Ask each new subscriber once, then a random one now and then, for what gossip did not bring."""
        asked: set[str] = set()
        last = trio.current_time()
        while True:
            await trio.sleep(0.5)
            subscribers = mesh.subscribers()
            asked &= subscribers
            if self._intake.window is None or not subscribers:
                continue
            fresh = subscribers - asked
            if not fresh and trio.current_time() - last < CATCHUP_SECONDS:
                continue
            peer = random.choice(sorted(fresh or subscribers))
            asked.add(peer)
            last = trio.current_time()
            await catchup.ask(peer, partial(self._hear_late, peer))

    async def _introduce(self, introducing: Introductions, mesh: AnnouncementTopic) -> None:
        """While this node is a newcomer, show its delegation to everybody in the swarm, again and again."""
        while True:
            await trio.sleep(INTRODUCE_SECONDS)
            if self._newcomer:
                await introducing.make(mesh.subscribers())

    # --- announcements out --------------------------------------------------------------------------------------

    async def _send_own(self, mesh: AnnouncementTopic) -> None:
        """Publish what is unsent as soon as the mesh has a neighbour."""
        while True:
            await self._publish.wait()
            self._publish = trio.Event()
            while self._unsent:
                if mesh.neighbours() == 0:
                    await trio.sleep(0.1)
                    continue
                slot = next(iter(self._unsent))
                await mesh.publish(self._unsent.pop(slot))
                self.counters["published"] += 1

    async def _send_released(self, mesh: AnnouncementTopic) -> None:
        while True:
            await mesh.forward(await self._released_out.receive())

    async def _watch_network(self, mesh: AnnouncementTopic, report: Report) -> None:
        """Report the number of connected subscribers when it changes; after a time alone, announce everything again."""
        told, was_connected = -1, False
        while True:
            count = len(mesh.subscribers())
            if count != told:
                if told == 0 and was_connected:
                    self._unsent = dict(self._own)
                    self._publish.set()
                was_connected = was_connected or count > 0
                told = count
                await report(NetworkChanged(count))
            await trio.sleep(0.5)
