"""Wiring and life cycle: builds the parts, starts them under supervision, stops them in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, assert_never

import msgspec
import structlog
import trio
from eth_account import Account

from node.app.announcement_guard import AnnouncementGuard, GuardedTrainer
from node.app.preflight import open_questions, read_facts, refuse_unowned, require_agreement, resolve_config
from node.app.round_recorder import RoundRecorder
from node.chain.service import ChainIdentity, CoordinatorService
from node.config import Config
from node.exits import Exit, Refusal
from node.grading.registry import gave_up
from node.http.service import HttpService
from node.identity import NodeKey, load_or_create, name_of
from node.identity.delegation_file import load_delegation, waiting_orders
from node.identity.key_owner_cases import OwnershipFacts
from node.identity.local_peer import LocalPeer, local_peer
from node.identity.rsa import RsaIdentity, load_rsa
from node.logs import configure
from node.machine import commands as c
from node.machine import inputs as i
from node.machine import views
from node.machine.memo import is_same
from node.machine.peer_score import has_positive_score
from node.machine.state import Output, State, initial
from node.machine.status import Status
from node.manifest_file import load_manifest
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.pubsub.announcer import announcement_of
from node.network.service import Libp2pNetwork
from node.ports.chain import ChainService
from node.ports.network import NetworkService, RoundWindow
from node.ports.service import Service
from node.ports.trainer import TrainerService
from node.publishing.hub_service import HubService
from node.publishing.trackers import TrackerService, configured
from node.runtime.bus import Bus
from node.runtime.loop import Loop, restore
from node.runtime.supervisor import supervise
from node.runtime.timers import Timers
from node.store.body_store import BodyStore
from node.store.directory import VOTES, DataDirectory, is_used
from node.store.journal import Journal
from node.store.outbox import SqliteOutbox
from node.store.restore_mark import is_marked, unmark
from node.store.round_reports import FILE as ROUNDS
from node.store.round_reports import open_round_store
from node.trainer.service.worker_client import WorkerClient
from node.validation.body_check import BodyCheck
from node.vote_protection import VoteProtection
from protocols.deployment import CoordinatorFacts
from protocols.identifiers import Address, Digest, swarm_id
from protocols.manifest import Manifest, manifest_digest
from protocols.signed_messages import MAX_ATTACHED, SignedDelegation, SignedMessage

log = structlog.get_logger()

Fault = Callable[[str], i.AnyInput | None]


def run_node(config: Config, data_dir: Path) -> int:
    """Run the node until told to stop; return its exit code. Raises `Refusal` for what only the operator can fix."""
    configure(config.log)
    manifest = load_manifest(data_dir / config.manifest)
    config = resolve_config(config, manifest)
    with DataDirectory(data_dir) as directory:
        return trio.run(_run, config, manifest, directory.path)


async def _run(config: Config, manifest: Manifest, home: Path) -> int:
    key, rsa = load_or_create(home / config.identity, used=is_used(home)), load_rsa(home)
    with VoteProtection(home / VOTES) as guard, Journal(home / "journal.sqlite") as journal:
        node = Node(config, home, manifest, key, rsa, journal, guard)
        return await node.run()


def no_input(_reason: str) -> None:
    """Return no input for a fault: this service's faults do not concern the machine."""


class Node:
    """One running node: its services, and the routes between them."""

    def __init__(
        self,
        config: Config,
        home: Path,
        manifest: Manifest,
        key: NodeKey,
        rsa: RsaIdentity | None,
        journal: Journal,
        guard: VoteProtection,
    ) -> None:
        self.config, self.home, self.manifest, self.guard = config, home, manifest, guard
        self.key, self.rsa, self.peer_id = key, rsa, rsa.peer_id if rsa else key.peer_id
        self.bus = Bus()
        self.bodies = BodyStore(home / "bodies")
        self.timers = Timers(time.time)
        self.chain = self.chain_of(SqliteOutbox(home / "outbox.sqlite"))
        self.me: LocalPeer
        self.trainer: TrainerService
        self.gossip: NetworkService | None = None
        self.check: BodyCheck | None = None
        state, replayed = restore(journal, initial(key.address, manifest))
        self.loop = Loop(journal, state, self.dispatch, self.publish, time.time)
        self.rounds = RoundRecorder(open_round_store(home / ROUNDS), self._peer_ids)
        self.window: RoundWindow | None = None
        self._window_of: tuple[object, ...] = ()
        self.swarm: Digest = bytes(32)
        self.facts: CoordinatorFacts | None = None
        log.info(
            "node.restored", name=name_of(self.peer_id), address=key.address, peer_id=self.peer_id, replayed=replayed
        )

    @property
    def state(self) -> State:
        """The machine's state."""
        return self.loop.state

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Start every service and take inputs until the machine stops the node. Returns the exit code."""
        http = HttpService(self.config.http, self.home, self.status, self.counters)
        code, refusal = int(Exit.OK), None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._handle_signals, nursery.cancel_scope)
            nursery.start_soon(supervise, http, self.bus.reporter("operator"), no_input)
            try:
                await self._join_swarm()
                self._start_services(nursery)
                code = await self._take_inputs()
            except Refusal as refused:
                refusal = refused
            nursery.cancel_scope.cancel()
        if refusal:
            raise refusal
        return code

    def _start_services(self, nursery: trio.Nursery) -> None:
        """Start the services, each under supervision, each with its own source on the bus."""
        assert self.gossip
        supervised: tuple[tuple[Service[Any], str, Fault], ...] = (
            (self.timers, "timers", no_input),
            (self.chain, "chain", i.ChainLost),
            (self.gossip, "gossip", lambda _: i.NetworkChanged(0)),
            (self.trainer, "trainer", i.TrainerLost),
        )
        for service, source, fault in supervised:
            nursery.start_soon(supervise, service, self.bus.reporter(source), fault)
        for follower in self._bus_followers():
            if follower.wanted:
                nursery.start_soon(supervise, follower, self.bus.reporter("operator"), no_input)

    def _bus_followers(self) -> tuple[HubService | TrackerService, ...]:
        """Return the services that only follow the bus: uploads to the hub, trackers."""
        config, manifest, trainer = self.config, self.manifest, self.home / "trainer"
        openers = configured(config.trackers, manifest, self.key.address, self.home)
        return (
            HubService(config.hub, manifest, config.trainer.model, trainer, self.bus, self.status),
            TrackerService(openers, [stage.name for stage in manifest.stages], self.bus),
        )

    async def _take_inputs(self) -> int:
        stop = await self.loop.take(i.NodeStarted(doppelganger_protection=is_marked(self.home), me=self.me.address))
        while stop is None:
            stop = await self.loop.take(await self.bus.next())
        if stop.code:
            raise Refusal(Exit(stop.code), stop.reason)
        return stop.code

    async def _handle_signals(self, everything: trio.CancelScope) -> None:
        """SIGTERM and SIGINT stop at once (the journal makes that safe); SIGUSR1 drains."""
        report = self.bus.reporter("operator")
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as received:
            async for number in received:
                if self.gossip is None:
                    everything.cancel()
                await report(i.DrainRequested() if number == signal.SIGUSR1 else i.StopRequested())

    # --- joining ------------------------------------------------------------------------------------------------

    async def _join_swarm(self) -> None:
        """Read the deployment, check that it is this manifest's, and build the services that depend on it."""
        facts = await read_facts(self.chain.read_facts, self.config.chain.contract, self.home / "coordinator.json")
        require_agreement(self.manifest, facts)
        await self._check_owner(facts)
        self.me = local_peer(self.key, self.rsa, facts.domain)
        self.facts = facts
        self.swarm = swarm_id(facts.chain_id, facts.contract, facts.deployment_block_hash)
        self.guard.bind(self.swarm)
        questions = await trio.to_thread.run_sync(open_questions, self.manifest, self.config)
        announcements = AnnouncementGuard(self.guard, self.bodies)
        self.trainer = GuardedTrainer(self.trainer_of(self.me.address), announcements)
        self.check = BodyCheck(self.manifest, questions, self.bodies)
        self.gossip = self.network_of(
            SwarmMember(
                self.me, self.swarm, self.manifest.limits, is_marked(self.home), manifest_digest(self.manifest)
            ),
            NetworkCallbacks(
                check_body=self.check,
                admit_announcement=announcements.admit,
                bootnodes=self.chain.read_bootnodes,
                attach_messages=self._attached_messages,
                introduction=self._introduction,
                has_positive_score=lambda peer: has_positive_score(self.state, peer),
            ),
        )
        self._update_window()

    def chain_of(self, outbox: SqliteOutbox) -> ChainService:
        """Return the view of the coordinator; `outbox` keeps its commands."""
        identity = ChainIdentity(Account.from_key(self.key.secret), self.peer_id)
        return CoordinatorService(self.config.chain, self.manifest, identity, outbox, self.guard)

    def network_of(self, member: SwarmMember, callbacks: NetworkCallbacks) -> NetworkService:
        """Return the network in which this node is a member of the swarm."""
        return Libp2pNetwork(self.config.gossip, member, self.bodies, callbacks, self.home / "peers.json")

    def trainer_of(self, peer: Address) -> TrainerService:
        """Return the trainer for this node's address in the deployment."""
        return WorkerClient(self.config.trainer, self.manifest, peer, self.home / "trainer", self.bodies)

    def _attached_messages(self, commands: tuple[c.OwnMessage, ...]) -> tuple[SignedMessage, ...]:
        """Return what is attached to an announcement: this node's own messages, then its owner's orders."""
        self._reload_delegation()
        return (*self.chain.signed_messages(commands), *self._pending_owner_orders())[:MAX_ATTACHED]

    def _pending_owner_orders(self) -> tuple[SignedMessage, ...]:
        """Return the owner's orders that are not on chain yet; none while the register's entry is not known."""
        facts, entry = self.facts, self.chain.register_entry
        if facts is None or entry is None:
            return ()
        try:
            return waiting_orders(self.home, facts.domain, entry.serial, entry.expiry)
        except (Refusal, OSError) as error:
            log.warning("orders.unreadable", reason=str(error))
            return ()

    def _introduction(self) -> SignedDelegation | None:
        self._reload_delegation()
        return self.chain.registration()

    def _reload_delegation(self) -> None:
        """Load a delegation that the owner has signed since the start, without a restart."""
        if self.facts is None:
            return
        try:
            signed = load_delegation(self.home, self.facts.domain)
        except Refusal as refused:
            log.warning("orders.unreadable", reason=str(refused))
            return
        if signed not in (None, self.chain.delegation):
            log.info("delegation.taken", owner=signed.delegation.owner, expiry=signed.delegation.expiry)
            self.chain.join(self.facts, signed)

    async def _check_owner(self, facts: CoordinatorFacts) -> None:
        """Load the owner's delegation, if there is one. Raises `Refusal` if the key belongs to another owner, or if it
        would become its own owner for good without `own_owner`."""
        signed = load_delegation(self.home, facts.domain)
        self.chain.join(facts, signed)
        claimed, registered = signed.delegation.owner if signed else None, await self.chain.read_owner()
        refuse_unowned(
            OwnershipFacts(node=self.key.address, claimed=claimed, registered=registered),
            has_owners=facts.has_owners,
            is_known=registered is not None or self.key.address in self.state.peers,
            own_owner=self.config.own_owner,
        )

    # --- routes -------------------------------------------------------------------------------------------------

    async def dispatch(self, command: c.AnyCommand) -> None:
        """Pass a command to the service that executes it."""
        match command:
            case c.SetTimer():
                await self.timers.execute(command)
            case c.PublishRollouts() | c.FetchRollouts() | c.IntroduceNode():
                self._add_own_body(command)
                if self.gossip:
                    await self.gossip.execute(command)
            case c.EndDoppelgangerProtection():
                unmark(self.home)
                if self.gossip:
                    self.gossip.switch_identity()
            case c.StopNode():
                pass  # the loop returns it
            case c.RegisterNode():
                self._reload_delegation()
                await self.chain.execute(command)
            case c.GenerateRollouts() | c.TrainOnRollouts() | c.AbortWork() | c.EvaluateModel() | c.SaveCheckpoint():
                await self.trainer.execute(command)
            case (
                c.RenewDelegation() | c.AdvanceStage() | c.CommitVote() | c.RevealVote() | c.CastVote()
                | c.ReportReward() | c.RelayMessages()
            ):  # fmt: skip
                await self.chain.execute(command)
            case _:
                assert_never(command)

    def _add_own_body(self, command: c.GossipCommand) -> None:
        """Have the body check compare bodies of peers with this node's own."""
        if not (self.check and isinstance(command, c.PublishRollouts)):
            return
        body = self.bodies.get(command.body) if command.size else None
        if body is not None:
            self.check.remember(self.me.address, announcement_of(command, self.swarm), body)

    def publish(self, stamped: i.Stamped, outputs: tuple[Output, ...]) -> None:
        """Publish an input and its outputs on the bus; record rounds that ended; update the network's window."""
        self.bus.publish(stamped, outputs)
        self.rounds.follow(self.state, stamped.at)
        self._update_window()

    def _update_window(self) -> None:
        """Pass the network a new window if the machine's view of the chain has changed."""
        state = self.state
        seen = (self.gossip, self.swarm, state.round, state.stage, state.seeds, state.peers)
        if is_same(seen, self._window_of):
            return
        self._window_of = seen
        window = RoundWindow(
            swarm=self.swarm, round=state.round, stage=state.stage, stages=len(self.manifest.stages),
            seeds=views.window_seeds(state), peers=views.eligible(state),
        )  # fmt: skip
        if self.gossip and window != self.window:
            self.window = window
            self.gossip.update_window(window)

    def status(self) -> Status:
        """Return the machine's status with the node's name and peer id."""
        return msgspec.structs.replace(views.status(self.state), name=name_of(self.peer_id), peer_id=self.peer_id)

    def _peer_ids(self, peers: Iterable[Address]) -> dict[Address, str]:
        """Return the peer ids of those of these peers that have announced anything lately."""
        gossip = self.gossip
        return {peer: found for peer in peers if (found := gossip.peer_id(peer))} if gossip else {}

    def counters(self) -> dict[str, dict[str, int]]:
        """Return counts by metric and reason, for /metrics."""
        gossip = self.gossip
        return {
            "gossip_dropped": dict(gossip.counters) if gossip else {},
            "connections": dict(gossip.connections) if gossip else {},
            "body_store": dict(self.bodies.counters),
            "grading": {"gave_up": gave_up()},
            "bus": dict(self.bus.counters),
        }
