from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from node.identity import NodeKey
from node.machine.commands import CommitVote, FetchRollouts, IntroduceNode, OwnMessage, PublishRollouts
from node.machine.inputs import (
    AnyInput,
    NetworkChanged,
    NodeIntroduced,
    RolloutsAnnounced,
    RolloutsArrived,
    RolloutsRefused,
)
from node.ports import RoundWindow, Verdict
from protocols.carried import Carried, CarriedCommitment, CarriedDelegation
from protocols.identifiers import Address, Digest, body_digest
from protocols.manifest import Limits
from protocols.wire import NOTHING, Announcement
from tests.support.fake_network import FakeGossipNode, FakeSwarm

SWARM, SEED = bytes([7]) * 32, bytes([1]) * 32
KEYS = [NodeKey(bytes([number]) * 32) for number in (1, 2, 3)]


class Shelf(dict[Digest, bytes]):
    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        self[digest] = body


def check(peer: Address, said: Announcement, body: bytes) -> Verdict:
    return Verdict(reason="rubbish" if body.startswith(b"bad") else "", groups=2, reward=1.5)


def carry(commands: tuple[OwnMessage, ...]) -> tuple[Carried, ...]:
    return tuple(CarriedCommitment(each.round, each.seed, bytes(65)) for each in commands)


DELEGATION = CarriedDelegation(KEYS[1].address, KEYS[0].address, 1, 2, bytes(65), bytes(65))


class Party:
    """Three nodes of one fake swarm that fetch whatever is announced."""

    def __init__(self) -> None:
        self.swarm = FakeSwarm()
        self.shelves = [Shelf() for _ in KEYS]
        self.heard: list[list[AnyInput]] = [[] for _ in KEYS]
        self.nodes = [
            FakeGossipNode(self.swarm, key, Limits(), SWARM, shelf, check, carry=carry, introduction=lambda: DELEGATION)
            for key, shelf in zip(KEYS, self.shelves, strict=True)
        ]
        for node in self.nodes:
            node.update_window(window())

    def reporter(self, place: int) -> Callable[[AnyInput], Awaitable[None]]:
        async def report(happened: AnyInput) -> None:
            self.heard[place].append(happened)
            if isinstance(happened, RolloutsAnnounced) and happened.size:
                said = happened
                await self.nodes[place].execute(
                    FetchRollouts(said.peer, said.round, said.stage, SEED, said.body, said.size)
                )

        return report

    async def publish(self, place: int, body: bytes, stage: int = 0) -> None:
        self.shelves[place].put(body_digest(body), body, 1)
        await self.nodes[place].execute(PublishRollouts(1, stage, SEED, body_digest(body), len(body)))

    def of(self, place: int, kind: type[AnyInput]) -> list[AnyInput]:
        return [each for each in self.heard[place] if isinstance(each, kind)]


def window(stage: int = 0) -> RoundWindow:
    peers = frozenset(key.address for key in KEYS)
    return RoundWindow(swarm=SWARM, round=1, stage=stage, stages=2, seeds={1: SEED}, peers=peers)


async def test_what_one_says_all_get(nursery: trio.Nursery) -> None:
    """An announcement reaches the others, small and large bodies arrive checked, bad ones are refused."""
    party = Party()
    for place, node in enumerate(party.nodes):
        nursery.start_soon(node.run, party.reporter(place))
    await wait_all_tasks_blocked()
    await party.publish(0, b"small")
    await party.publish(1, bytes(100_000))
    await party.publish(2, b"bad")
    await wait_all_tasks_blocked()
    assert party.of(0, NetworkChanged)[-1] == NetworkChanged(2)
    assert {each.body for each in party.of(0, RolloutsArrived)} == {body_digest(bytes(100_000))}
    assert party.of(1, RolloutsRefused) == [RolloutsRefused(KEYS[2].address, 1, 0, body_digest(b"bad"), "rubbish")]
    assert party.of(1, RolloutsArrived) == [RolloutsArrived(KEYS[0].address, 1, 0, body_digest(b"small"), 2, 1.5)]


async def test_a_node_that_was_cut_off_catches_up(nursery: trio.Nursery) -> None:
    """Cut off, a node counts no peers and hears nothing; afterwards it learns what it missed."""
    party = Party()
    for place, node in enumerate(party.nodes):
        nursery.start_soon(node.run, party.reporter(place))
    await wait_all_tasks_blocked()
    party.swarm.cut_off(KEYS[2].address)
    await party.publish(0, b"missed")
    await wait_all_tasks_blocked()
    assert party.of(2, NetworkChanged)[-1] == NetworkChanged(0)
    assert party.of(2, RolloutsAnnounced) == []
    party.swarm.reconnect(KEYS[2].address)
    await wait_all_tasks_blocked()
    assert [each.body for each in party.of(2, RolloutsArrived)] == [body_digest(b"missed")]


async def test_the_next_stage_waits_for_the_window(nursery: trio.Nursery) -> None:
    """An announcement of the next stage is reported only after the window has moved, and once."""
    party = Party()
    for place, node in enumerate(party.nodes):
        nursery.start_soon(node.run, party.reporter(place))
    await wait_all_tasks_blocked()
    party.nodes[0].update_window(window(1))
    await party.publish(0, b"early bird", stage=1)
    await wait_all_tasks_blocked()
    assert party.of(1, RolloutsAnnounced) == []
    party.nodes[1].update_window(window(1))
    await wait_all_tasks_blocked()
    assert [each.stage for each in party.of(1, RolloutsAnnounced)] == [1]


async def test_rubbish_is_counted_and_nobody_falls_over(nursery: trio.Nursery) -> None:
    """Garbage from outside is counted under its reason, and the swarm goes on; a second own body is never announced."""
    party = Party()
    for place, node in enumerate(party.nodes):
        nursery.start_soon(node.run, party.reporter(place))
    await wait_all_tasks_blocked()
    party.swarm.inject(b"\xff" * 50)
    party.swarm.inject(msgspec.msgpack.encode([b"", bytes(65)]))
    await party.publish(0, b"first")
    await party.publish(0, b"second")
    await wait_all_tasks_blocked()
    assert party.nodes[1].counters["schema"] == 2
    assert party.nodes[0].counters["own-equivocation"] == 1
    assert [each.body for each in party.of(1, RolloutsArrived)] == [body_digest(b"first")]


async def test_messages_travel_and_newcomers_are_heard(nursery: trio.Nursery) -> None:
    """What an announcement carries is told with it, also without rollouts; a newcomer's delegation reaches all."""
    party = Party()
    for place, node in enumerate(party.nodes):
        nursery.start_soon(node.run, party.reporter(place))
    await wait_all_tasks_blocked()
    vote = CommitVote(0, SEED, (KEYS[1].address,))
    await party.nodes[0].execute(PublishRollouts(1, 0, SEED, NOTHING, 0, relays=True, attached=(vote,)))
    await party.nodes[0].execute(IntroduceNode())
    await wait_all_tasks_blocked()
    for place in (1, 2):
        assert party.of(place, RolloutsAnnounced) == [
            RolloutsAnnounced(KEYS[0].address, 1, 0, NOTHING, 0, False, True, carry((vote,)))
        ]
        assert party.of(place, NodeIntroduced) == [NodeIntroduced(KEYS[0].address, DELEGATION)]
    assert party.of(0, NodeIntroduced) == []
