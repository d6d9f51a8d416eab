"""One node's loop over a fake chain and a fake trainer, in no real time: it plays, reports and opens stages by itself.

Machine, journal, timers and outbox rules are the real ones; there is no network.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from eth_account import Account
from trio.testing import MockClock

from node.chain.service import ChainIdentity
from node.data.arithmetic import ArithmeticQuestions
from node.machine import commands as c
from node.machine import inputs as i
from node.machine.state import initial
from node.runtime.bus import Bus
from node.runtime.loop import Loop
from node.runtime.timers import Timers
from node.store.body_store import BodyStore
from node.store.journal import Journal
from protocols.manifest import DataSpec, GameSpec, Manifest, StageSpec, VotingSpec
from tests.support.fake_chain import FakeChainService
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.fake_trainer import FakeTrainer

START = 1_800_000_000.0
STAGE_SECONDS = 60
MANIFEST = Manifest(
    name="lone node",
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


class LoneNode:
    """A node's loop with its services, as `node.app.node` wires them, without a network."""

    def __init__(self, coordinator: FakeCoordinator, home: Path) -> None:
        identity = ChainIdentity(Account.from_key(b"\1" * 32))
        self.address, self.bus, self.timers = identity.address, Bus(), Timers(now)
        self.chain = FakeChainService(coordinator, identity, AnyVote(), relays=True)
        self.chain.join(coordinator.facts, None)
        self.trainer = FakeTrainer(MANIFEST, self.address, ArithmeticQuestions(), BodyStore(home / "bodies"))
        self.journal = Journal(home / "journal.sqlite")
        state = initial(self.address, MANIFEST)
        self.loop = Loop(self.journal, state, self.dispatch, lambda stamped, outputs: None, now)

    async def dispatch(self, command: c.AnyCommand) -> None:
        match command:
            case c.SetTimer():
                await self.timers.execute(command)
            case c.GenerateRollouts() | c.TrainOnRollouts() | c.AbortWork() | c.EvaluateModel() | c.SaveCheckpoint():
                await self.trainer.execute(command)
            case (
                c.RegisterNode() | c.RenewDelegation() | c.AdvanceStage() | c.CommitVote() | c.RevealVote()
                | c.CastVote() | c.ReportReward() | c.RelayMessages()
            ):  # fmt: skip
                await self.chain.execute(command)
            case _:
                pass

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for source, service in (("timers", self.timers), ("chain", self.chain), ("trainer", self.trainer)):
                nursery.start_soon(service.run, self.bus.reporter(source))
            await self.loop.take(i.NodeStarted(me=self.address))
            while True:
                await self.loop.take(await self.bus.next())


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[tuple[LoneNode, FakeCoordinator]]:
    coordinator = FakeCoordinator(MANIFEST, now)
    node = LoneNode(coordinator, home)
    with node.journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            yield node, coordinator
            nursery.cancel_scope.cancel()


async def test_a_lone_node_registers_and_keeps_the_clock_going(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It opens every stage at its deadline and reports a reward of each round in which it counts."""
    async with running(tmp_path) as (node, coordinator):
        await trio.sleep(5.5 * STAGE_SECONDS)
        assert coordinator.register[node.address].since == 1
        assert coordinator.stage.round == 5
        assert {each.round for each in coordinator.rewards} >= {1, 2, 3, 4}
        assert node.loop.state.totals.updates > 0


async def test_a_pause_costs_a_lone_node_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The stage goes on when the pause is over, with the time that it had left, and its reward is reported then."""
    async with running(tmp_path) as (node, coordinator):
        await trio.sleep(1.1 * STAGE_SECONDS)
        coordinator.pause(10 * STAGE_SECONDS)
        await trio.sleep(10 * STAGE_SECONDS)
        assert coordinator.stage.round == 1
        await trio.sleep(STAGE_SECONDS)
        assert coordinator.stage.round == 2
        assert coordinator.has_reward(node.address, 1, 0)


async def test_what_a_lone_node_misses_while_the_chain_is_away_is_caught_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Back after two rounds, it goes on with the present one."""
    async with running(tmp_path) as (node, coordinator):
        await trio.sleep(1.5 * STAGE_SECONDS)
        node.chain.cut()
        await trio.sleep(2 * STAGE_SECONDS)
        assert node.loop.state.chain == "absent"
        node.chain.mend()
        await trio.sleep(3 * STAGE_SECONDS)
        assert coordinator.stage.round >= 3
        assert coordinator.has_reward(node.address, coordinator.stage.round - 1, 0)
