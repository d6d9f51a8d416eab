"""Three nodes in one process and no real time: machine, journal, timers, body check and validator are the real ones;
network, trainer and chain are fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio
from eth_account import Account

from node.app.announcement_guard import AnnouncementGuard, GuardedTrainer
from node.chain.service import ChainIdentity
from node.data.arithmetic import ArithmeticQuestions
from node.identity import NodeKey
from node.identity.local_peer import local_peer
from node.machine import commands as c
from node.machine import inputs as i
from node.machine import views
from node.machine.state import Output, initial
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.ports.network import RoundWindow
from node.runtime.bus import Bus
from node.runtime.loop import Loop
from node.runtime.timers import Timers
from node.store.body_store import BodyStore
from node.store.journal import Journal
from node.validation.body_check import BodyCheck
from node.vote_protection import VoteProtection
from protocols.identifiers import Address
from protocols.manifest import DataSpec, GameSpec, Manifest, StageSpec, VotingSpec
from protocols.typed_data import Domain
from tests.support.fake_chain import FakeChainService
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.fake_network import FakeHub, FakeNetwork
from tests.support.fake_trainer import FakeTrainer

START = 1_700_000_000.0
STAGE_SECONDS = 60
KEYS = [NodeKey(bytes([number]) * 32) for number in (1, 2, 3)]
DOMAIN = Domain(1, "0x" + "c0" * 20, bytes([7]) * 32)
SWARM = bytes([7]) * 32
QUESTIONS = ArithmeticQuestions()
MANIFEST = Manifest(
    name="whole loop",
    data=DataSpec(source="arithmetic"),
    game=GameSpec(num_prompts=6, min_prompts=2, common=2, num_generations=4, local_groups=4, external_groups=4),
    stages=(StageSpec(name="play", seconds=STAGE_SECONDS),),
    voting=VotingSpec(mode="sealed", winners=2, minimum_groups=2),
)


def now() -> float:
    """Return the time in Unix seconds, by trio's clock."""
    return START + trio.current_time()


class AnyVote:
    """A vote guard that lets everything pass."""

    def admit(self, *_: object) -> bool:
        return True


class LoopNode:
    """A node's loop with its services, wired as `node.app.node` does."""

    def __init__(self, key: NodeKey, hub: FakeHub, coordinator: FakeCoordinator, home: Path) -> None:
        self.key, self.bus, self.timers = key, Bus(), Timers(now)
        bodies = BodyStore(home / "bodies")
        me = local_peer(key, None, DOMAIN)
        identity = ChainIdentity(Account.from_key(key.secret))
        self.chain = FakeChainService(coordinator, identity, AnyVote(), relays=key is KEYS[0])
        self.chain.join(coordinator.facts, None)
        self.guard = VoteProtection(home / "votes.sqlite", SWARM)
        announcements = AnnouncementGuard(self.guard, bodies)
        callbacks = NetworkCallbacks(
            BodyCheck(MANIFEST, QUESTIONS, bodies), announcements.admit, attach_messages=self.chain.signed_messages
        )
        self.network = FakeNetwork(hub, SwarmMember(me, SWARM, MANIFEST.limits), bodies, callbacks)
        self.trainer = GuardedTrainer(FakeTrainer(MANIFEST, key.address, QUESTIONS, bodies), announcements)
        self.journal, self.relayed = Journal(home / "journal.sqlite"), 0
        self.loop = Loop(self.journal, initial(key.address, MANIFEST), self.dispatch, self.publish, now)

    async def dispatch(self, command: c.AnyCommand) -> None:
        match command:
            case c.SetTimer():
                await self.timers.execute(command)
            case c.PublishRollouts() | c.FetchRollouts() | c.IntroduceNode():
                await self.network.execute(command)
            case c.GenerateRollouts() | c.TrainOnRollouts() | c.AbortWork() | c.EvaluateModel() | c.SaveCheckpoint():
                await self.trainer.execute(command)
            case (
                c.RegisterNode() | c.RenewDelegation() | c.AdvanceStage() | c.CommitVote() | c.RevealVote()
                | c.CastVote() | c.ReportReward() | c.RelayMessages()
            ):  # fmt: skip
                self.relayed += isinstance(command, c.RelayMessages)
                await self.chain.execute(command)
            case _:
                pass

    def publish(self, stamped: i.Stamped, outputs: tuple[Output, ...]) -> None:
        state = self.loop.state
        self.network.update_window(
            RoundWindow(swarm=SWARM, round=state.round, stage=state.stage, stages=1, seeds=views.window_seeds(state),
                        peers=views.eligible(state))
        )  # fmt: skip

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for source, service in (
                ("timers", self.timers), ("chain", self.chain), ("gossip", self.network), ("trainer", self.trainer),
            ):  # fmt: skip
                nursery.start_soon(service.run, self.bus.reporter(source))
            await self.loop.take(i.NodeStarted(me=self.key.address))
            while True:
                await self.loop.take(await self.bus.next())


class Swarm:
    """The nodes, the coordinator and what connects them."""

    def __init__(self, home: Path, nursery: trio.Nursery) -> None:
        self.coordinator, self.nursery = FakeCoordinator(MANIFEST, now), nursery
        hub = FakeHub()
        self.nodes: list[LoopNode] = []
        for number, key in enumerate(KEYS):
            (home / str(number)).mkdir()
            self.nodes.append(LoopNode(key, hub, self.coordinator, home / str(number)))

    def votes(self, node: LoopNode) -> dict[int, tuple[Address, ...]]:
        """Return the winners that a node has voted for, by round."""
        return {each.round: each.winners for each in self.coordinator.votes if each.voter == node.key.address}


@asynccontextmanager
async def swarm_at(home: Path) -> AsyncIterator[Swarm]:
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        swarm = Swarm(home, nursery)
        for node in swarm.nodes:
            stack.enter_context(node.journal)
            stack.enter_context(node.guard)
        yield swarm
        nursery.cancel_scope.cancel()


async def test_three_nodes_play_and_vote(tmp_path: Path, autojump_clock: object) -> None:
    """In every round each gets the bodies of both others, trains on them, and votes for one of them at least. The
    messages of those without funds travel with their announcements, and the funded one submits them."""
    async with swarm_at(tmp_path) as swarm:
        for node in swarm.nodes:
            swarm.nursery.start_soon(node.run)
        await trio.sleep(6.5 * STAGE_SECONDS)
    for node in swarm.nodes:
        totals, votes = node.loop.state.totals, swarm.votes(node)
        assert totals.bodies_accepted >= 2 * 4
        assert totals.external_groups > 0
        assert (totals.rounds_skipped, totals.stages_skipped) == (0, 0)
        assert {1, 2, 3} <= set(votes)
        assert all(winners and node.key.address not in winners for winners in votes.values())
    assert [bool(node.relayed) for node in swarm.nodes] == [True, False, False]


async def test_the_others_go_on_without_one(tmp_path: Path, autojump_clock: object) -> None:
    """A node that is away for some rounds is not voted for; back again, it plays, votes and is voted for."""
    async with swarm_at(tmp_path) as swarm:
        *present, absent = swarm.nodes
        for node in present:
            swarm.nursery.start_soon(node.run)
        with trio.move_on_after(2.9 * STAGE_SECONDS):
            await absent.run()
        await trio.sleep(3.0 * STAGE_SECONDS)
        swarm.nursery.start_soon(absent.run)
        await trio.sleep(7.0 * STAGE_SECONDS)
    address, away, back = absent.key.address, {3, 4}, {7, 8, 9}
    for node in present:
        assert away | back <= set(swarm.votes(node))
        assert not any(address in swarm.votes(node)[number] for number in away)
    assert any(address in swarm.votes(node)[number] for node in present for number in back)
    assert not swarm.votes(absent).keys() & away
    assert swarm.votes(absent).keys() & back
