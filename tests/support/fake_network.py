"""Gossip inside one process: the service's interface and its rules, without sockets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import trio

from node.identity import NodeKey
from node.identity.local_peer import local_peer
from node.machine.commands import FetchRollouts, GossipCommand, IntroduceNode, PublishRollouts
from node.machine.inputs import AnyInput, NetworkChanged, NodeIntroduced, RolloutsArrived, RolloutsRefused
from node.network.pubsub.announcer import Carry, announcement_of, signed_announcement
from node.network.pubsub.validator import AcceptedAnnouncement, AnnouncementValidator, InboundMessage, announced
from node.network.reqresp.introductions import Introduction
from node.ports import Bodies, CheckBody, Report, RoundWindow
from protocols.admission import Slot
from protocols.identifiers import Address, Digest
from protocols.manifest import Limits
from protocols.typed_data import Domain
from protocols.wire import NOTHING

NOWHERE = Domain(0, "0x" + "00" * 20, bytes(32))
"""Fake nodes have no RSA identities, so that it does not matter for which deployment those would speak."""


class FakeSwarm:
    """The hub: what a running node says reaches every other running node at once, unless one of them is cut off."""

    def __init__(self) -> None:
        self._running: dict[Address, FakeGossipNode] = {}
        self._cut_off: set[Address] = set()

    def cut_off(self, address: Address) -> None:
        """Separate a node from all others."""
        self._cut_off.add(address)
        self._recount()

    def reconnect(self, address: Address) -> None:
        """Undo `cut_off`; the node and the others learn what they missed."""
        self._cut_off.discard(address)
        self._recount()
        if address in self._running:
            self._introduce(self._running[address])

    def join(self, node: FakeGossipNode) -> None:
        """Take a node in and exchange what it and the others have announced."""
        self._running[node.address] = node
        self._recount()
        self._introduce(node)

    def leave(self, node: FakeGossipNode) -> None:
        """Let a node go."""
        self._running.pop(node.address, None)
        self._recount()

    def others(self, node: FakeGossipNode) -> Iterator[FakeGossipNode]:
        """Return the nodes that `node` can reach."""
        if node.address in self._running and node.address not in self._cut_off:
            for address, other in list(self._running.items()):
                if address != node.address and address not in self._cut_off:
                    yield other

    def inject(self, data: bytes, origin: Address | None = None) -> None:
        """Let every reachable node hear these bytes, as a hostile peer would send them."""
        for address, node in list(self._running.items()):
            if address not in self._cut_off:
                node.hear(data, origin)

    def _introduce(self, node: FakeGossipNode) -> None:
        for other in self.others(node):
            for data in other.known():
                node.hear(data, None)
            for data in node.known():
                other.hear(data, None)

    def _recount(self) -> None:
        for node in list(self._running.values()):
            node.connected(sum(1 for _ in self.others(node)))


class FakeGossipNode:
    """`node.ports.GossipService` on a `FakeSwarm`; admission, signatures and body checks are the real ones."""

    name = "gossip"

    def __init__(
        self,
        swarm: FakeSwarm,
        key: NodeKey,
        limits: Limits,
        swarm_digest: Digest,
        bodies: Bodies,
        check: CheckBody,
        *,
        carry: Carry = lambda commands: (),
        introduction: Introduction = lambda: None,
    ) -> None:
        self.address = key.address
        self.addresses: tuple[str, ...] = ()
        self._swarm, self._me, self._limits = swarm, local_peer(key, None, NOWHERE), limits
        self._digest, self._bodies, self._check = swarm_digest, bodies, check
        self._carry, self._introduction = carry, introduction
        self._intake = AnnouncementValidator(swarm_digest, limits)
        self._own: dict[Slot, bytes] = {}
        self._reports_in, self._reports_out = trio.open_memory_channel[AnyInput](math.inf)
        self._fetches: dict[FetchRollouts, None] = {}
        self._work = trio.Event()

    @property
    def counters(self) -> Counter[str]:
        """Announcements and bodies by reason."""
        return self._intake.counters

    def update_window(self, window: RoundWindow) -> None:
        """Take the machine's new view."""
        for accepted in self._intake.move(window):
            self._tell(accepted)
        self._own = {slot: data for slot, data in self._own.items() if self._intake.is_current(slot)}
        for other in self._swarm.others(self):
            for data in other.known():
                self.hear(data, None)

    async def execute(self, command: GossipCommand) -> None:
        """Announce and introduce at once, fetch in `run`."""
        match command:
            case FetchRollouts():
                self._fetches[command] = None
                self._work.set()
            case IntroduceNode():
                self._introduce()
            case PublishRollouts():
                self._announce(command)

    def _introduce(self) -> None:
        message = self._introduction()
        if message is not None:
            for other in self._swarm.others(self):
                other.introduced(NodeIntroduced(self.address, message))

    def introduced(self, newcomer: NodeIntroduced) -> None:
        """Take in what a newcomer says of itself."""
        self._reports_in.send_nowait(newcomer)

    def _announce(self, command: PublishRollouts) -> None:
        slot = Slot(peer=self.address, round=command.round, stage=command.stage, seed=command.seed)
        body = b"" if command.body == NOTHING else self._bodies.get(command.body)
        if body is None or self._intake.announced(slot) not in (None, command.body):
            self.counters["own-missing" if body is None else "own-equivocation"] += 1
            return
        carried = self._carry(command.attached)
        data = signed_announcement(self._me, self._digest, self._limits, command, body, carried)
        self._own[slot] = data
        self._intake.judge(InboundMessage(data=data, origin=self.address))
        for other in self._swarm.others(self):
            other.hear(data, self.address)

    def known(self) -> list[bytes]:
        """Return the announcements that others may learn from this node."""
        accepted = [self._intake.envelope(slot) for slot in self._intake.slots()]
        return list(dict.fromkeys([*self._own.values(), *(data for data in accepted if data)]))

    def hear(self, data: bytes, origin: Address | None) -> None:
        """Take in bytes that a peer sent."""
        judged = self._intake.judge(InboundMessage(data=data, origin=origin, late=origin is None))
        if judged.accepted is not None:
            self._tell(judged.accepted)

    def connected(self, count: int) -> None:
        """Note how many nodes can be reached."""
        self._reports_in.send_nowait(NetworkChanged(count))

    def body(self, digest: Digest) -> bytes | None:
        """Serve a body to another node."""
        return self._bodies.get(digest)

    def _tell(self, accepted: AcceptedAnnouncement) -> None:
        if accepted.peer != self.address:
            self._reports_in.send_nowait(announced(accepted))

    async def run(self, report: Report) -> None:
        """Take part until cancelled."""
        self._swarm.join(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report, report)
                nursery.start_soon(self._fetch)
        finally:
            self._swarm.leave(self)

    async def _report(self, report: Report) -> None:
        while True:
            await report(await self._reports_out.receive())

    async def _fetch(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._fetches:
                command = next(iter(self._fetches))
                del self._fetches[command]
                self._reports_in.send_nowait(self._obtain(command))
            await trio.lowlevel.checkpoint()

    def _obtain(self, command: FetchRollouts) -> RolloutsArrived | RolloutsRefused:
        where = (command.peer, command.round, command.stage, command.body)
        sources = [self._bodies.get(command.body), *(other.body(command.body) for other in self._swarm.others(self))]
        body = next((each for each in sources if each is not None), None)
        if body is None:
            return RolloutsRefused(*where, "unavailable")
        verdict = self._check(command.peer, announcement_of(command, self._digest), body)
        if verdict.reason:
            return RolloutsRefused(*where, verdict.reason)
        self._bodies.put(command.body, body, command.round)
        return RolloutsArrived(*where, verdict.groups, verdict.reward, verdict.alike, verdict.doubt)
