"""Three nodes in one process and no real time: machine, journal, timers, body check and validator are the real ones;
network, trainer and chain are fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from node.data.arithmetic import ArithmeticQuestions
from node.identity import NodeKey
from node.identity.local_peer import local_peer
from node.machine import commands as c
from node.machine import inputs as i
from node.machine import views
from node.machine.state import Output, initial
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.ports import Report, RoundWindow
from node.runtime.bus import Bus
from node.runtime.loop import Loop
from node.runtime.timers import Timers
from node.store.body_store import BodyStore
from node.store.journal import Journal
from node.validation.body_check import BodyCheck
from protocols.identifiers import Address, Seed, keccak256
from protocols.manifest import DataSpec, GameSpec, Manifest, StageSpec, VotingSpec
from protocols.typed_data import Domain
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
    voting=VotingSpec(mode="open", winners=2, minimum_groups=2),
)


def now() -> float:
    """Return the time in Unix seconds, by trio's clock."""
    return START + trio.current_time()


def seed_of(round_number: int) -> Seed:
    return keccak256(round_number.to_bytes(8, "big"))


class ChainStandIn:
    """`node.ports.ChainService` for one node: all are registered, a round opens every minute, commands are noted."""

    name = "chain"

    def __init__(self, peers: Sequence[Address]) -> None:
        self._peers = peers
        self.commands: list[c.ChainCommand] = []

    async def execute(self, command: c.ChainCommand) -> None:
        self.commands.append(command)

    async def run(self, report: Report) -> None:
        await report(i.ChainRestored(0.0))
        for peer in self._peers:
            await report(i.PeerRegistered(peer, 1))
        while True:
            number = 1 + int(trio.current_time() // STAGE_SECONDS)
            deadline = int(START) + number * STAGE_SECONDS
            await report(i.StageOpened(number, 0, seed_of(number), deadline, deadline - STAGE_SECONDS, number))
            await trio.sleep(deadline - now())


class LoopNode:
    """A node's loop with its services, wired as `node.app.node` does."""

    def __init__(self, key: NodeKey, hub: FakeHub, home: Path) -> None:
        self.key, self.bus, self.timers = key, Bus(), Timers(now)
        bodies = BodyStore(home / "bodies")
        me = local_peer(key, None, DOMAIN)
        callbacks = NetworkCallbacks(BodyCheck(MANIFEST, QUESTIONS, bodies))
        self.network = FakeNetwork(hub, SwarmMember(me, SWARM, MANIFEST.limits), bodies, callbacks)
        self.trainer = FakeTrainer(MANIFEST, key.address, QUESTIONS, bodies)
        self.chain = ChainStandIn([each.address for each in KEYS])
        self.journal = Journal(home / "journal.sqlite")
        self.loop = Loop(self.journal, initial(key.address, MANIFEST), self.dispatch, self.publish, now)

    async def dispatch(self, command: c.AnyCommand) -> None:
        match command:
            case c.SetTimer():
                await self.timers.execute(command)
            case c.PublishRollouts() | c.FetchRollouts() | c.IntroduceNode():
                await self.network.execute(command)
            case c.GenerateRollouts() | c.TrainOnRollouts() | c.AbortWork() | c.EvaluateModel() | c.SaveCheckpoint():
                await self.trainer.execute(command)
            case c.RegisterNode() | c.AdvanceStage() | c.CastVote() | c.ReportReward():
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

    def votes(self) -> dict[int, tuple[Address, ...]]:
        """Return the winners that this node voted for, by round."""
        return {each.round: each.winners for each in self.chain.commands if isinstance(each, c.CastVote)}


@asynccontextmanager
async def nodes_at(home: Path) -> AsyncIterator[tuple[list[LoopNode], trio.Nursery]]:
    hub = FakeHub()
    nodes: list[LoopNode] = []
    async with AsyncExitStack() as stack:
        for number, key in enumerate(KEYS):
            (home / str(number)).mkdir()
            node = LoopNode(key, hub, home / str(number))
            stack.enter_context(node.journal)
            nodes.append(node)
        nursery = await stack.enter_async_context(trio.open_nursery())
        yield nodes, nursery
        nursery.cancel_scope.cancel()


async def test_three_nodes_play_and_vote(tmp_path: Path, autojump_clock: object) -> None:
    """In every round each gets the bodies of both others, trains on them, and votes for one of them at least."""
    async with nodes_at(tmp_path) as (nodes, nursery):
        for node in nodes:
            nursery.start_soon(node.run)
        await trio.sleep(4.5 * STAGE_SECONDS)
    for node in nodes:
        totals = node.loop.state.totals
        assert totals.bodies_accepted >= 2 * 3
        assert totals.external_groups > 0
        assert (totals.rounds_skipped, totals.stages_skipped) == (0, 0)
        assert {1, 2, 3} <= set(node.votes())
        assert all(winners and node.key.address not in winners for winners in node.votes().values())


async def test_the_others_go_on_without_one(tmp_path: Path, autojump_clock: object) -> None:
    """A node that is away for some rounds is not voted for; back again, it plays, votes and is voted for."""
    async with nodes_at(tmp_path) as (nodes, nursery):
        for node in nodes[:2]:
            nursery.start_soon(node.run)
        with trio.move_on_after(1.9 * STAGE_SECONDS):
            await nodes[2].run()
        await trio.sleep(3.0 * STAGE_SECONDS)
        nursery.start_soon(nodes[2].run)
        await trio.sleep(5.0 * STAGE_SECONDS)
    absent = nodes[2].key.address
    for node in nodes[:2]:
        assert {number for number, winners in node.votes().items() if absent in winners} & {3, 4} == set()
        assert {3, 4, 5, 6, 7, 8} <= set(node.votes())
    assert any(absent in node.votes()[number] for node in nodes[:2] for number in (6, 7, 8))
    assert nodes[2].votes().keys() & {3, 4} == set()
    assert nodes[2].votes().keys() & {6, 7, 8}
