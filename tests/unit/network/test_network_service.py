"""What every `NetworkService` does: the real one over loopback and the tests' fake, one set of tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from node.config import GossipSettings
from node.identity import NodeKey
from node.identity.local_peer import local_peer
from node.machine.commands import CommitVote, FetchRollouts, IntroduceNode, OwnMessage, PublishRollouts
from node.machine.inputs import (
    AnyInput,
    DoppelgangerDetected,
    NetworkChanged,
    NodeIntroduced,
    RolloutsAnnounced,
    RolloutsArrived,
    RolloutsRefused,
)
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.service import Libp2pNetwork
from node.ports.bodies import Verdict
from node.ports.network import NetworkService, RoundWindow
from protocols.identifiers import Address, Digest, body_digest
from protocols.manifest import Limits
from protocols.signed_messages import SignedCommitment, SignedDelegation, SignedMessage
from protocols.typed_data import Domain
from protocols.wire import NOTHING, Announcement
from tests.support.fake_network import FakeHub, FakeNetwork

InputT = TypeVar("InputT", bound=AnyInput)

SWARM, SEED = bytes([7]) * 32, bytes([1]) * 32
DOMAIN = Domain(1, "0x" + "c0" * 20, bytes([7]) * 32)
KEYS = [NodeKey(bytes([number]) * 32) for number in (1, 2, 3)]
DELEGATION = SignedDelegation(KEYS[0].address, KEYS[2].address, 1, 2, bytes(65), bytes(65))


class MemoryBodies(dict[Digest, bytes]):
    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        self[digest] = body


def check(peer: Address, announcement: Announcement, body: bytes) -> Verdict:
    return Verdict(reason="rubbish" if body.startswith(b"bad") else "", groups=2, reward=1.5)


def attach(commands: tuple[OwnMessage, ...]) -> tuple[SignedMessage, ...]:
    return tuple(SignedCommitment(each.round, each.seed, bytes(65)) for each in commands)


def window(stage: int = 0, registered: Sequence[NodeKey] = KEYS) -> RoundWindow:
    peers = frozenset(key.address for key in registered)
    return RoundWindow(swarm=SWARM, round=1, stage=stage, stages=2, seeds={1: SEED}, peers=peers)


class Member:
    """One service, everything it has reported, and a fetch for whatever is announced."""

    def __init__(self, service: NetworkService, bodies: MemoryBodies) -> None:
        self.service, self.bodies = service, bodies
        self.reported: list[AnyInput] = []
        self._news = trio.Event()
        self._running = trio.CancelScope()

    async def report(self, happened: AnyInput) -> None:
        self.reported.append(happened)
        self._news.set()
        self._news = trio.Event()
        if isinstance(happened, RolloutsAnnounced) and happened.size:
            where = (happened.peer, happened.round, happened.stage, SEED, happened.body, happened.size)
            await self.service.execute(FetchRollouts(*where))

    async def run(self) -> None:
        with trio.CancelScope() as self._running:
            await self.service.run(self.report)

    def stop(self) -> None:
        self._running.cancel()

    def of(self, kind: type[InputT]) -> list[InputT]:
        return [each for each in self.reported if isinstance(each, kind)]

    async def until(
        self, kind: type[InputT], holds: Callable[[InputT], bool] = lambda _: True, *, last: bool = False
    ) -> InputT:
        """Wait for an input; return the first one for which something holds, or wait until it holds for the last."""
        with trio.fail_after(20):
            while True:
                news = self._news
                found = next((each for each in self.of(kind)[-1 if last else 0 :] if holds(each)), None)
                if found is not None:
                    return found
                await news.wait()

    async def publish(self, body: bytes, stage: int = 0) -> Digest:
        digest = body_digest(body)
        self.bodies.put(digest, body, 1)
        await self.service.execute(PublishRollouts(1, stage, SEED, digest, len(body)))
        return digest

    async def arrived(self, body: Digest) -> RolloutsArrived:
        return await self.until(RolloutsArrived, lambda each: each.body == body)

    async def counted(self, reason: str) -> int:
        with trio.fail_after(20):
            while not self.service.counters.get(reason):  # noqa: ASYNC110 - counters have no event
                await trio.sleep(0.05)
        return self.service.counters[reason]


Build = Callable[[SwarmMember, MemoryBodies, NetworkCallbacks], NetworkService]


class Party:
    """Members of one swarm."""

    def __init__(self, build: Build, nursery: trio.Nursery) -> None:
        self._build, self._nursery = build, nursery
        self.members: list[Member] = []

    async def join(self, key: NodeKey, ephemeral: bool = False, start: RoundWindow | None = None) -> Member:
        """Add a member and wait until it is connected to all others that run."""
        bodies, others = MemoryBodies(), sum(bool(each.service.addresses) for each in self.members)
        swarm_member = SwarmMember(local_peer(key, None, DOMAIN), SWARM, Limits(), ephemeral)
        callbacks = NetworkCallbacks(check, lambda command, known: command, self._bootnodes, attach, lambda: DELEGATION)
        member = Member(self._build(swarm_member, bodies, callbacks), bodies)
        member.service.update_window(start or window())
        self.members.append(member)
        self._nursery.start_soon(member.run)
        await member.until(NetworkChanged, lambda each: each.connected == others)
        return member

    async def join_all(self) -> list[Member]:
        return [await self.join(key) for key in KEYS]

    async def _bootnodes(self) -> Sequence[str]:
        return self.members[0].service.addresses


@pytest.fixture(params=["fake", "libp2p"], name="party")
async def _party(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Party]:
    async with party_of(request.param, tmp_path) as party:
        yield party


@asynccontextmanager
async def party_of(kind: str, home: Path) -> AsyncIterator[Party]:
    hub = FakeHub()

    def fake(member: SwarmMember, bodies: MemoryBodies, callbacks: NetworkCallbacks) -> NetworkService:
        return FakeNetwork(hub, member, bodies, callbacks)

    def real(member: SwarmMember, bodies: MemoryBodies, callbacks: NetworkCallbacks) -> NetworkService:
        settings = GossipSettings(listen=("/ip4/127.0.0.1/tcp/0",), ping_seconds=1.0)
        store = home / f"{member.me.address}-{member.ephemeral_peer_id}.json"
        return Libp2pNetwork(settings, member, bodies, callbacks, store)

    async with trio.open_nursery() as nursery:
        yield Party(fake if kind == "fake" else real, nursery)
        nursery.cancel_scope.cancel()


async def test_what_one_announces_all_get(party: Party) -> None:
    """Small and large bodies arrive checked, bad ones are refused, and everything is counted by reason."""
    one, two, three = await party.join_all()
    small, large, bad = await one.publish(b"small"), await two.publish(bytes(100_000)), await three.publish(b"bad")
    assert await two.arrived(small) == RolloutsArrived(KEYS[0].address, 1, 0, small, 2, 1.5)
    assert await one.arrived(large) == RolloutsArrived(KEYS[1].address, 1, 0, large, 2, 1.5)
    assert await one.until(RolloutsRefused) == RolloutsRefused(KEYS[2].address, 1, 0, bad, "rubbish")
    assert (one.service.counters["body-accepted"], one.service.counters["body-rubbish"]) == (1, 1)
    assert one.service.peer_id(KEYS[1].address) == KEYS[1].peer_id
    assert one.of(DoppelgangerDetected) == []


async def test_a_service_has_addresses_while_it_runs(party: Party) -> None:
    """They end in its peer id; a stopped service has none."""
    member = await party.join(KEYS[0])
    assert [each.rpartition("/p2p/")[2] for each in member.service.addresses] == [KEYS[0].peer_id]
    member.stop()
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(10):
        while member.service.addresses:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.05)


async def test_a_node_that_was_away_catches_up(party: Party) -> None:
    """Stopped, a node is missed; run again, it learns what was announced meanwhile."""
    one, two, three = await party.join_all()
    for member in (one, two):
        await member.until(NetworkChanged, lambda each: each.connected == 2)
    three.stop()
    for member in (one, two):
        await member.until(NetworkChanged, lambda each: each.connected == 1, last=True)
    missed = await one.publish(b"missed")
    await two.arrived(missed)
    assert three.of(RolloutsAnnounced) == []
    party._nursery.start_soon(three.run)
    assert (await three.arrived(missed)).peer == KEYS[0].address


async def test_the_next_stage_waits_for_the_window(party: Party) -> None:
    """An early announcement is counted, and reported only after the window has moved, once and not as late."""
    one, two, _ = await party.join_all()
    one.service.update_window(window(1))
    early = await one.publish(b"early bird", stage=1)
    await two.counted("early")
    assert two.of(RolloutsAnnounced) == []
    two.service.update_window(window(1))
    await two.arrived(early)
    assert [(each.stage, each.late) for each in two.of(RolloutsAnnounced)] == [(1, False)]


async def test_a_second_body_is_never_announced(party: Party) -> None:
    """Nor is one that is not there; both are counted, and the first body is what the others get."""
    one, two, _ = await party.join_all()
    first = await one.publish(b"first")
    await one.publish(b"second")
    await one.service.execute(PublishRollouts(1, 1, SEED, body_digest(b"nowhere"), 7))
    assert (one.service.counters["own-equivocation"], one.service.counters["own-body-missing"]) == (1, 1)
    await two.arrived(first)
    assert [each.body for each in two.of(RolloutsArrived)] == [first]


async def test_messages_are_attached_and_newcomers_introduced(party: Party) -> None:
    """Messages come with an announcement, also without rollouts; a newcomer's delegation reaches all, until it is
    registered."""
    one, two = [await party.join(key, start=window(registered=KEYS[:2])) for key in KEYS[:2]]
    newcomer = await party.join(KEYS[2], start=window(registered=KEYS[:2]))
    vote = CommitVote(0, SEED, (KEYS[1].address,))
    await one.service.execute(PublishRollouts(1, 0, SEED, NOTHING, 0, relays=True, attached=(vote,)))
    await newcomer.service.execute(IntroduceNode())
    announced = RolloutsAnnounced(KEYS[0].address, 1, 0, NOTHING, 0, False, True, attach((vote,)))
    assert await two.until(RolloutsAnnounced) == announced
    for member in (one, two):
        assert await member.until(NodeIntroduced) == NodeIntroduced(KEYS[2].address, DELEGATION)
        assert await member.counted("introduction") == 1
    assert newcomer.of(NodeIntroduced) == []


async def test_a_second_node_with_the_same_key_hears_the_first(party: Party) -> None:
    """Under an ephemeral peer id it disturbs nobody, and hears its own messages from elsewhere."""
    one, two = await party.join(KEYS[0]), await party.join(KEYS[1])
    second = await party.join(KEYS[0], ephemeral=True)
    body = await one.publish(b"mine")
    await two.arrived(body)
    assert await second.until(DoppelgangerDetected) == DoppelgangerDetected(1, 0, SEED, body)
    second.service.switch_identity()
    assert one.of(DoppelgangerDetected) == []


async def test_nothing_is_accepted_from_strangers(party: Party) -> None:
    """An announcement of a node that is not registered is counted and not reported."""
    registered = window(registered=KEYS[:1])
    one, stranger = await party.join(KEYS[0], start=registered), await party.join(KEYS[1], start=registered)
    await stranger.publish(b"hello")
    await one.counted("unregistered")
    assert one.of(RolloutsAnnounced) == []
