"""The chain service against RL Swarm's interface on a real anvil: each release's rules, outages, restarts, reorgs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from eth_account import Account

from contracts import send
from node.chain.contract.rlswarm import REWARD_SCALE
from node.chain.contract.rlswarm_ledger import ABI, SIGNED, UNSIGNED, RLSwarmLedger
from node.chain.readers.detection import detect
from node.chain.readers.rlswarm_reader import RLSwarmReader
from node.chain.rpc.client import connect
from node.chain.service import ChainIdentity, CoordinatorService
from node.config import ChainSettings
from node.exits import Exit, Refusal
from node.identity import NodeKey
from node.localnet.local_chain import LocalChain
from node.machine.commands import AdvanceStage, CastVote, CommitVote, RegisterNode, ReportReward
from node.machine.inputs import ChainLost, ChainRestored, PeerRegistered, StageOpened, TransactionSettled
from node.machine.transaction_keys import AdvanceKey, MessageKey, RegistrationKey
from node.store.outbox import SqliteOutbox
from node.vote_protection import VoteProtection
from protocols.manifest import Manifest, StageSpec, VotingSpec
from protocols.signed_messages import MessageKind, MessageTopic
from tests.integration.chain_place import KEYS, Reports, vote_key
from tools.stage_manager import ARTIFACT, StageManager, deploy_rl_swarm

pytestmark = pytest.mark.integration

STAGES = {"0.4.2": 3, "0.4.3": 3, "0.6.0": 1}


class Running(Reports):
    """A running service of RL Swarm's contract."""

    async def at(self, place: tuple[int, int], since: int = 0) -> StageOpened:
        return await self.until(StageOpened, lambda one: (one.round, one.stage) == place, since)


class Swarm:
    """A chain with a contract of one release, and the disks of its nodes; account 0 manages stages."""

    def __init__(self, chain: LocalChain, home: Path, version: str) -> None:
        self.chain, self.home, self.stages = chain, home, STAGES[version]
        self.address = deploy_rl_swarm(chain.url, KEYS[0], version)
        self.manager = StageManager(chain.url, KEYS[0], self.address)
        self.guards: dict[Path, VoteProtection] = {}
        self.ids = [NodeKey(bytes.fromhex(key[2:])) for key in KEYS]

    def service(self, number: int, confirmations: int = 0) -> CoordinatorService:
        home = self.home / f"node-{number}"
        home.mkdir(exist_ok=True)
        settings = ChainSettings(urls=(self.chain.url,), contract=self.address, poll_seconds=1.0, max_fee_gwei=10_000.0)
        stages = tuple(StageSpec(name=str(stage), seconds=60) for stage in range(self.stages))
        manifest = Manifest(name="rl", stages=stages, voting=VotingSpec(mode="open"), confirmations=confirmations)
        key = self.ids[number]
        if home not in self.guards:
            self.guards[home] = VoteProtection(home / "votes.sqlite")
        outbox = SqliteOutbox(home / "outbox.sqlite")
        identity = ChainIdentity(Account.from_key(key.secret))
        return CoordinatorService(settings, manifest, identity, outbox, self.guards[home])

    @asynccontextmanager
    async def running(self, *numbers: int) -> AsyncIterator[list[Running]]:
        nodes = [Running(self.service(number)) for number in numbers]
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(node.service.run, node.report)
            yield nodes
            nursery.cancel_scope.cancel()

    async def advance(self, first: Running, *others: Running, seconds: int = 100) -> StageOpened:
        """The manager opens the next stage; return it as the first node reports it."""
        self.chain.call("evm_increaseTime", seconds)
        self.manager.update()
        place = self.manager.place()
        for node in others:
            await node.at(place)
        return await first.at(place)

    async def next_round(self, *nodes: Running) -> StageOpened:
        for _ in range(self.stages):
            opened = await self.advance(*nodes)
        return opened

    async def joined(self, *nodes: Running) -> None:
        for node in nodes:
            await node.service.execute(RegisterNode())
        for node in nodes:
            assert (await node.settled(RegistrationKey())).ok

    def view(self, function: str, *arguments: object) -> Any:
        call = {"to": self.address, "data": ABI.call(function, *arguments)}
        return ABI.result(function, self.chain.call("eth_call", call, "latest"))[0]

    def events(self, name: str) -> list[dict[str, Any]]:
        query = {"address": self.address, "fromBlock": "0x0", "topics": [ABI.topic(name)]}
        events = [ABI.event(log) for log in self.chain.call("eth_getLogs", query)]
        return [event.fields for event in events if event]

    def nonce(self, number: int) -> int:
        return int(self.chain.call("eth_getTransactionCount", self.ids[number].address, "latest"), 16)


@pytest.fixture(params=list(STAGES))
def swarm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Swarm]:
    """A chain that mines only with transactions and on demand, with each release in turn."""
    with LocalChain(block_seconds=None, accounts=4) as chain:
        yield Swarm(chain, tmp_path, request.param)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Swarm]:
    """The same with 0.4.2."""
    with LocalChain(block_seconds=None, accounts=4) as chain:
        yield Swarm(chain, tmp_path, "0.4.2")


@pytest.mark.parametrize("version", list(STAGES))
async def test_two_nodes_play_over_a_restart_of_the_chain(version: str, tmp_path: Path) -> None:
    """They register, follow the same rounds with the same seeds, report rewards and vote, each exactly once."""
    with LocalChain(block_seconds=1, accounts=4, state=tmp_path / "state.json") as chain:
        swarm = Swarm(chain, tmp_path, version)
        async with swarm.running(1, 2) as (one, two):
            await swarm.joined(one, two)
            expected = {PeerRegistered(swarm.ids[number].address, 1) for number in (1, 2)}
            for peer in expected:
                assert await one.until(PeerRegistered, peer.__eq__)
            for number in range(1, 4):
                await swarm.next_round(one, two)
                opened = await one.at((number, 0))
                assert (await two.at((number, 0))).seed == opened.seed
                for node in (one, two):
                    await node.service.execute(ReportReward(number, 0, opened.seed, 0.25 * number))
                if number == 2:
                    since = [len(node.inputs) for node in (one, two)]
                    await trio.to_thread.run_sync(chain.stop)
                    for node, begun in zip((one, two), since, strict=True):
                        await node.until(ChainLost, since=begun)
                if number > 1:
                    voted_on = await one.at((number - 1, 0))
                    await one.service.execute(CastVote(number - 1, voted_on.seed, (swarm.ids[2].address,)))
                    await two.service.execute(CastVote(number - 1, voted_on.seed, (swarm.ids[1].address,)))
                if number == 2:
                    chain.start()
                    for node, begun in zip((one, two), since, strict=True):
                        await node.until(ChainRestored, since=begun)
                        assert not (await node.until(StageOpened, since=begun)).rewound
                if number > 1:
                    for node in (one, two):
                        assert (await node.settled(vote_key(number - 1, voted_on.seed))).ok
                for node in (one, two):
                    assert (await node.settled(MessageKey(MessageTopic(MessageKind.REWARD, number, 0)))).ok
    with LocalChain(block_seconds=None, accounts=4, state=tmp_path / "state.json") as chain:
        swarm.chain = chain
        votes = Counter((event["roundNumber"], event["peerId"]) for event in swarm.events("WinnerSubmitted"))
        assert votes == {(number, swarm.ids[node].peer_id): 1 for number in (1, 2) for node in (1, 2)}
        rewards = {(event["roundNumber"], event["reward"]) for event in swarm.events("RewardSubmitted")}
        assert rewards == {(number, number * REWARD_SCALE // 4) for number in (1, 2, 3)}
        assert [swarm.nonce(number) for number in (1, 2)] == [6, 6]


async def test_the_interface_is_found_out_and_what_it_fixes_is_told(swarm: Swarm) -> None:
    """Stage count and deployment are known; manifest and durations are nowhere on chain."""
    facts = await swarm.service(1).read_facts()
    assert (facts.stage_seconds, facts.manifest_digest, facts.voting_mode) == ((0,) * swarm.stages, b"", "open")
    (created,) = swarm.chain.call("eth_getLogs", {"fromBlock": "0x0", "topics": [ABI.topic("Initialized")]})
    assert facts.deployment_block_hash.hex() == created["blockHash"][2:]
    async with connect(swarm.chain.url, 1.0) as endpoint:
        assert await detect(endpoint, swarm.address) == "rl-swarm"


async def test_the_reward_functions_are_told_apart_by_a_call(swarm: Swarm) -> None:
    """A function that is not there is refused without a name."""
    async with connect(swarm.chain.url, 1.0) as endpoint:
        ledger = RLSwarmLedger(swarm.address, swarm.ids[1].address, swarm.ids[1].peer_id, [60])
        reader = RLSwarmReader(endpoint, swarm.address, ledger)
        found = [await reader._has(function) for function in (SIGNED, UNSIGNED)]
    assert found == [True, swarm.view("version") > 0]


async def test_a_deadline_is_what_the_last_stages_took(old: Swarm) -> None:
    """The manifest's seconds first, then the pace that was seen; a restarted node reads the very same stage."""
    async with old.running(1) as (node,):
        first = await node.until(StageOpened)
        assert (first.deadline - first.opened, first.round) == (60, 0)
        for _ in range(12):
            opened = await old.advance(node, seconds=100)
        assert 100 <= opened.deadline - opened.opened <= 102
    async with old.running(1) as (node,):
        assert await node.until(StageOpened) == opened


async def test_a_peer_id_of_another_account_is_refused(old: Swarm) -> None:
    """Before the start with the account named; a squatter who comes later makes registration fail, in words."""
    send(old.chain.url, KEYS[3], old.address, "registerPeer", old.ids[1].peer_id, artifact=ARTIFACT)
    with pytest.raises(Refusal, match=old.ids[3].address) as refused:
        await old.service(1).read_facts()
    assert refused.value.code == Exit.IDENTITY
    async with old.running(1) as (node,):
        await node.service.execute(RegisterNode())
        done = await node.settled(RegistrationKey())
        assert (done.ok, done.error) == (False, "PeerIdAlreadyRegistered")
        assert not [one for one in node.inputs if isinstance(one, PeerRegistered)]
    assert old.nonce(1) == 0


async def test_a_registration_and_a_vote_there_already_are_done(old: Swarm, tmp_path: Path) -> None:
    """A node whose disk is lost finds its own registration and its own vote; another vote of it stays refused."""
    async with old.running(1, 2) as (one, two):
        await old.joined(one, two)
        seed = (await old.next_round(one)).seed
        vote = CastVote(1, seed, (old.ids[2].address,))
        await one.service.execute(vote)
        assert (await one.settled(vote_key(1, seed))).ok
    old.home = tmp_path / "elsewhere"
    old.home.mkdir()
    async with old.running(1) as (one,):
        await one.service.execute(RegisterNode())
        await one.service.execute(vote)
        assert (await one.settled(RegistrationKey())).ok
        assert (await one.settled(vote_key(1, seed))).ok
    old.home = tmp_path / "third"
    old.home.mkdir()
    send(old.chain.url, KEYS[3], old.address, "registerPeer", old.ids[3].peer_id, artifact=ARTIFACT)
    async with old.running(1) as (one,):
        await one.service.execute(CastVote(1, seed, (old.ids[3].address,)))
        done = await one.settled(vote_key(1, seed))
        assert (done.ok, done.error) == (False, "WinnerAlreadyVoted")
    assert old.nonce(1) == 2


async def test_what_the_contract_lacks_is_settled_without_a_transaction(old: Swarm) -> None:
    """The clock is the manager's, sealed votes do not exist, strangers can't win: the machine gets its answer."""
    async with old.running(1) as (node,):
        seed = (await node.until(StageOpened)).seed
        await node.service.execute(AdvanceStage(0, 0))
        await node.service.execute(CommitVote(0, seed, (old.ids[2].address,)))
        await node.service.execute(CastVote(0, seed, (old.ids[2].address,)))
        assert await node.settled(AdvanceKey(0, 0)) == TransactionSettled(AdvanceKey(0, 0), True, "", "")
        assert (await node.settled(MessageKey(MessageTopic(MessageKind.COMMIT, 0), seed))).error == "OpenVotesOnly"
        assert (await node.settled(vote_key(0, seed))).error == "UnknownWinner"
    assert (old.nonce(1), old.manager.place()) == (0, (0, 0))


async def test_a_late_reward_of_the_old_contract_waits_for_its_stage(old: Swarm) -> None:
    """0.4.2 refuses a past round's last stage until the swarm is in such a stage again: it is not lost."""
    async with old.running(1) as (node,):
        await old.joined(node)
        seed = (await old.next_round(node)).seed
        await old.next_round(node)
        await node.service.execute(ReportReward(1, 2, seed, 1.0))
        await trio.sleep(0.5)
        assert not [
            one
            for one in node.inputs
            if isinstance(one, TransactionSettled) and one.key == MessageKey(MessageTopic(MessageKind.REWARD, 1, 2))
        ]
        await old.advance(node)
        await old.advance(node)
        assert (await node.settled(MessageKey(MessageTopic(MessageKind.REWARD, 1, 2)))).ok


async def test_a_reorg_of_the_rounds_opening_makes_another_round(old: Swarm) -> None:
    """The seed goes with the block that opened the round, and a vote on the round that was is not sent."""
    async with old.running(1, 2) as (one, two):
        await old.joined(one, two)
        for _ in range(2):
            await old.advance(one)
        old.chain.call("anvil_mine", "0x5")
        before = await old.advance(one)
        since = len(one.inputs)
        old.chain.call("anvil_reorg", 2, [])
        old.chain.call("evm_mine")
        back = await one.until(StageOpened, since=since)
        assert (back.round, back.stage, back.rewound) == (0, 2, True)
        old.manager.update()
        after = await one.at((1, 0), since)
        assert after.seed != before.seed
        await one.service.execute(CastVote(1, before.seed, (old.ids[2].address,)))
        assert (await one.settled(vote_key(1, before.seed))).error == "SeedChanged"


async def test_bootnodes_that_cannot_be_dialled_are_left_out(old: Swarm) -> None:
    """hivemind's QUIC and relay addresses stand in the same list."""
    good = f"/ip4/192.0.2.7/tcp/30011/p2p/{old.ids[3].peer_id}"
    bad = ["/ip4/192.0.2.7/udp/1/quic/p2p/QmQ1cyNkEkEKajPmwRh4NwgpCjun8rVkmtAv8ttxXStKtA", "nonsense"]
    send(old.chain.url, KEYS[0], old.address, "addBootnodes", [bad[0], good, bad[1]], artifact=ARTIFACT)
    assert await old.service(1).read_bootnodes() == (good,)


async def test_a_node_that_comes_late_finds_rounds_and_peers(old: Swarm) -> None:
    """Old blocks are read as ranges: each peer counts from the round after its own registration."""
    async with old.running(1, 2) as (one, two):
        await old.joined(one)
        for _ in range(2):
            await old.next_round(one)
        await old.joined(two)
        seed = (await one.at((2, 0))).seed
    old.chain.call("anvil_mine", "0x60")
    async with old.running(3) as (late,):
        opened = await late.until(StageOpened)
        assert (opened.round, opened.stage, opened.seed) == (2, 0, seed)
        known = {one for one in late.inputs if isinstance(one, PeerRegistered)}
        assert known == {PeerRegistered(old.ids[1].address, 1), PeerRegistered(old.ids[2].address, 3)}
