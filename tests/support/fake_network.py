"""A network inside one process: `node.ports.network.NetworkService` without sockets.

Validation, signatures and body checks are the real ones. Messages reach every other running node at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import trio

from node.machine.commands import FetchRollouts, GossipCommand, IntroduceNode, PublishRollouts
from node.machine.inputs import (
    AnyInput,
    DoppelgangerDetected,
    NetworkChanged,
    NodeIntroduced,
    RolloutsArrived,
    RolloutsRefused,
)
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.pubsub.announcer import announcement_of, sign_announcement
from node.network.pubsub.inbound_message import AcceptedAnnouncement, InboundMessage, rollouts_announced
from node.network.pubsub.own_announcements import OwnAnnouncements
from node.network.pubsub.validator import AnnouncementValidator
from node.ports.bodies import Bodies
from node.ports.network import RoundWindow
from node.ports.service import Report
from protocols.admission import Slot
from protocols.identifiers import Address, Digest
from protocols.wire import NOTHING


class FakeHub:
    """Connects the running nodes with each other."""

    def __init__(self) -> None:
        self._running: list[FakeNetwork] = []

    def join(self, node: FakeNetwork) -> None:
        """Take a node in; it and the others exchange what they know."""
        self._running.append(node)
        self._recount()
        for other in self.others(node):
            node.catch_up(other)
            other.catch_up(node)
            other.introduce_to(node)
            node.introduce_to(other)

    def leave(self, node: FakeNetwork) -> None:
        """Let a node go."""
        self._running.remove(node)
        self._recount()

    def others(self, node: FakeNetwork) -> Iterator[FakeNetwork]:
        """Yield the nodes that a running node can reach."""
        if node in self._running:
            yield from [other for other in self._running if other is not node]

    def _recount(self) -> None:
        for node in self._running:
            node.report(NetworkChanged(len(self._running) - 1))


class FakeNetwork:
    """`node.ports.network.NetworkService` on a `FakeHub`."""

    name = "gossip"

    def __init__(self, hub: FakeHub, member: SwarmMember, bodies: Bodies, callbacks: NetworkCallbacks) -> None:
        self._hub, self._member, self._bodies, self._callbacks = hub, member, bodies, callbacks
        self._me = member.me
        self._validator = AnnouncementValidator(member.swarm, member.limits, member.me.domain)
        self.connections: Counter[str] = Counter()
        self._own = OwnAnnouncements()
        self._introducing = False
        self._introduced_to: set[FakeNetwork] = set()
        self._running = False
        self._inputs_in, self._inputs_out = trio.open_memory_channel[AnyInput](math.inf)
        self._fetches_in, self._fetches_out = trio.open_memory_channel[FetchRollouts](math.inf)

    @property
    def counters(self) -> Counter[str]:
        """Announcements and bodies by reason."""
        return self._validator.counters

    @property
    def addresses(self) -> tuple[str, ...]:
        """One address that nobody can dial, while the node runs."""
        return (f"/memory/1/p2p/{self._me.peer_id}",) if self._running else ()

    def peer_id(self, address: Address) -> str | None:
        """Return the peer id of a registered node that has announced something."""
        return self._validator.peer_id(address)

    def switch_identity(self) -> None:
        """Do nothing: the hub knows no peer ids."""

    # --- commands and the window --------------------------------------------------------------------------------

    def update_window(self, window: RoundWindow) -> None:
        """Take the machine's new view, and what was missed before it."""
        self._introducing = self._introducing and self._me.address not in window.peers
        for accepted in self._validator.move(window):
            self._report_accepted(accepted)
        self._own.keep(self._validator.is_current)
        for other in self._hub.others(self):
            self.catch_up(other)

    async def execute(self, command: GossipCommand) -> None:
        """Announce and introduce at once, fetch in `run`."""
        match command:
            case FetchRollouts():
                self._fetches_in.send_nowait(command)
            case IntroduceNode():
                self._introducing = True
                for other in self._hub.others(self):
                    self.introduce_to(other)
            case PublishRollouts():
                self._announce(command)

    def _announce(self, asked: PublishRollouts) -> None:
        slot = Slot(peer=self._me.address, round=asked.round, stage=asked.stage, seed=asked.seed)
        command = self._callbacks.admit_announcement(asked, self._validator.announced(slot))
        if command is None:
            self.counters["own-equivocation"] += 1
            return
        body = b"" if command.body == NOTHING else self._bodies.get(command.body)
        if body is None or self._validator.announced(slot) not in (None, command.body):
            self.counters["own-body-missing" if body is None else "own-equivocation"] += 1
            return
        attached = self._callbacks.attach_messages(command.attached)
        data = sign_announcement(self._me, self._member.swarm, self._member.limits, command, body, attached)
        self._own.add(slot, data)
        self._validator.validate(InboundMessage(data=data, origin=self._me.address))
        for other in self._hub.others(self):
            other.validate(InboundMessage(data=data, origin=self._me.address))

    # --- between nodes ------------------------------------------------------------------------------------------

    def validate(self, message: InboundMessage) -> None:
        """Take in a message of another node."""
        result = self._validator.validate(message)
        if result.accepted is not None:
            self._report_accepted(result.accepted)

    def catch_up(self, other: FakeNetwork) -> None:
        """Take in what another node knows and this one does not."""
        for slot, data in other.known().items():
            if self._validator.announced(slot) is None:
                self.validate(InboundMessage(data=data, origin=None, late=True))

    def known(self) -> dict[Slot, bytes]:
        """Return the accepted announcements."""
        return {slot: data for slot in self._validator.slots() if (data := self._validator.envelope(slot))}

    def introduce_to(self, other: FakeNetwork) -> None:
        """Show this node's delegation, once, while it is not registered."""
        message = self._callbacks.introduction()
        if self._introducing and message is not None and other not in self._introduced_to:
            self._introduced_to.add(other)
            other.counters["introduction"] += 1
            other.report(NodeIntroduced(self._me.address, message))

    def body(self, digest: Digest) -> bytes | None:
        """Serve a body to another node."""
        return self._bodies.get(digest)

    def report(self, happened: AnyInput) -> None:
        """Queue an input for the machine."""
        self._inputs_in.send_nowait(happened)

    def _report_accepted(self, accepted: AcceptedAnnouncement) -> None:
        announcement = accepted.announcement
        if accepted.peer == self._me.address:
            where = (announcement.round, announcement.stage, announcement.seed, announcement.body)
            self.report(DoppelgangerDetected(*where))
        else:
            self.report(rollouts_announced(accepted))

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self, report: Report) -> None:
        """Take part until cancelled."""
        self._hub.join(self)
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_reports, report)
                nursery.start_soon(self._fetch)
        finally:
            self._running = False
            self._hub.leave(self)

    async def _send_reports(self, report: Report) -> None:
        while True:
            await report(await self._inputs_out.receive())

    async def _fetch(self) -> None:
        while True:
            command = await self._fetches_out.receive()
            self.report(self._obtain(command))

    def _obtain(self, command: FetchRollouts) -> RolloutsArrived | RolloutsRefused:
        where = (command.peer, command.round, command.stage, command.body)
        sources = [self._bodies.get(command.body), *(other.body(command.body) for other in self._hub.others(self))]
        body = next((each for each in sources if each is not None), None)
        if body is None:
            return RolloutsRefused(*where, "unavailable")
        announcement = announcement_of(command, self._member.swarm)
        verdict = self._callbacks.check_body(command.peer, announcement, body)
        self.counters[f"body-{verdict.reason or 'accepted'}"] += 1
        if verdict.reason:
            return RolloutsRefused(*where, verdict.reason, verdict.missing)
        self._bodies.put(command.body, body, command.round)
        return RolloutsArrived(*where, verdict.groups, verdict.reward, verdict.alike, verdict.doubt)
