"""The chain service against a real anvil: outages, reorgs, stuck transactions, restarts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trio
from eth_account import Account

from contracts import Deployment, Parameters, deploy, send
from node.chain.batches import sign
from node.chain.binding import ABI, signed_words
from node.chain.service import CoordinatorService
from node.config import ChainSettings
from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    RegisterNode,
    RelayMessages,
    RenewDelegation,
    ReportReward,
)
from node.machine.inputs import (
    AnyInput,
    ChainLost,
    ChainRestored,
    DelegationRead,
    PauseChanged,
    PeerRegistered,
    StageOpened,
    TransactionSettled,
)
from node.store.outbox import SqliteOutbox
from protocols.carried import Load, carried_delegation
from protocols.delegation import SignedDelegation
from protocols.identifiers import Seed
from protocols.manifest import Manifest
from protocols.typed_data import Delegation, Domain
from tools.local_chain import LocalChain, developer_keys

pytestmark = pytest.mark.integration

PATIENCE = 20.0
KEYS = developer_keys(4)
InputT = TypeVar("InputT", bound=AnyInput)


class Permissive:
    """A vote guard that remembers what it was asked and says `answer`."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    def admit(self, kind: str, round_number: int, seed: Seed, payload: bytes) -> bool:
        self.asked.append((kind, round_number))
        return self.answer


class Running:
    """A running service and what it reported."""

    def __init__(self, service: CoordinatorService, stop: trio.CancelScope) -> None:
        self.service, self.stop = service, stop
        self.inputs: list[AnyInput] = []

    async def report(self, one: AnyInput) -> None:
        self.inputs.append(one)

    async def execute(self, command: ChainCommand) -> None:
        await self.service.execute(command)

    async def until(
        self, kind: type[InputT], fits: Callable[[InputT], bool] = lambda _: True, since: int = 0
    ) -> InputT:
        """Wait for an input among those reported from number `since` on."""
        with trio.fail_after(PATIENCE):
            while True:
                for one in self.inputs[since:]:
                    if isinstance(one, kind) and fits(one):
                        return one
                await trio.sleep(0.01)

    async def settled(self, key: str, since: int = 0) -> TransactionSettled:
        return await self.until(TransactionSettled, lambda one: one.key == key, since)


class Place:
    """A chain with a coordinator, and the disk of one node."""

    def __init__(self, chain: LocalChain, deployment: Deployment, home: Path) -> None:
        self.chain, self.deployment, self.home = chain, deployment, home
        self.account = Account.from_key(KEYS[1])

    def service(self, guard: Permissive | None = None, **changed: Any) -> CoordinatorService:
        urls = changed.pop("urls", (self.chain.url,))
        settings = ChainSettings(
            urls=urls,
            contract=self.deployment.address,
            poll_seconds=1.0,
            max_fee_gwei=10_000.0,
            relay_gas_per_day=changed.pop("relay_gas_per_day", 10_000_000),
        )
        outbox = SqliteOutbox(self.home / "outbox.sqlite")
        manifest = Manifest(name="test", confirmations=changed.pop("confirmations", 0))
        guard = guard or Permissive()
        return CoordinatorService(settings, self.account, manifest, outbox, guard, bytes(self.account.key), **changed)

    @asynccontextmanager
    async def running(self, guard: Permissive | None = None, **changed: Any) -> AsyncIterator[Running]:
        async with trio.open_nursery() as nursery:
            running = Running(self.service(guard, **changed), nursery.cancel_scope)
            nursery.start_soon(running.service.run, running.report)
            yield running
            nursery.cancel_scope.cancel()

    def advance(self) -> None:
        """Somebody else opens the next stage."""
        self.chain.call("evm_increaseTime", 100)
        self.chain.call("anvil_mine", "0x2")
        send(self.chain.url, KEYS[3], self.deployment.address, "advance")

    def delegation(self, owner: str, node: str, expiry: int = 2**64 - 1) -> SignedDelegation:
        """Return what both keys signed."""
        salt = self.view("eip712Domain")[5]
        domain = Domain(int(self.chain.call("eth_chainId"), 16), self.deployment.address, salt)
        both = [Account.from_key(key) for key in (owner, node)]
        names = [str(account.address).lower() for account in both]
        said = Delegation(*names, time.time_ns() // 1_000_000, expiry)
        return SignedDelegation(said, *(sign(domain, said, account) for account in both))

    def register(self, key: str, owner: str | None = None) -> None:
        """Somebody else brings a registration; without an owner the node is its own."""
        data = ABI.call("register", signed_words(self.delegation(owner or key, key)))
        sender = Account.from_key(KEYS[3]).address
        call = {"from": sender, "to": self.deployment.address, "data": data, "gas": hex(500_000)}
        name = self.chain.call("eth_sendTransaction", call)
        while not (receipt := self.chain.call("eth_getTransactionReceipt", name)):
            time.sleep(0.02)
        assert receipt["status"] == "0x1"

    def now(self) -> int:
        return int(self.chain.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def forget(self) -> None:
        """Lose the outbox."""
        (self.home / "outbox.sqlite").unlink()

    def view(self, function: str, *arguments: object) -> tuple[Any, ...]:
        call = {"to": self.deployment.address, "data": ABI.call(function, *arguments)}
        return ABI.result(function, self.chain.call("eth_call", call, "latest"))

    def nonce(self, tag: str = "latest") -> int:
        return int(self.chain.call("eth_getTransactionCount", self.account.address, tag), 16)


def place_on(chain: LocalChain, home: Path, mode: str = "open", seconds: int = 60) -> Place:
    parameters = Parameters(
        stage_seconds=(seconds, seconds), manifest_digest=b"m" * 32, voting_mode=mode, anchor_blocks=1
    )
    return Place(chain, deploy(chain.url, KEYS[0], parameters), home)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A chain that mines only with transactions and on demand."""
    with LocalChain(block_seconds=None, accounts=4) as chain:
        yield place_on(chain, tmp_path)


@pytest.fixture
def ticking(tmp_path: Path) -> Iterator[Place]:
    """A chain that mines every second and keeps its state on disk."""
    with LocalChain(block_seconds=1, accounts=4, state=tmp_path / "state.json") as chain:
        yield place_on(chain, tmp_path)


async def test_the_facts_are_what_was_deployed(place: Place) -> None:
    """A node learns from the contract what it has to compare with its manifest."""
    send(place.chain.url, KEYS[0], place.deployment.address, "addBootnode", "/ip4/192.0.2.7/tcp/1")
    service = place.service()
    facts = await service.describe()
    assert (facts.chain_id, facts.stage_seconds, facts.voting_mode) == (31337, (60, 60), "open")
    assert facts.manifest_digest == b"m" * 32
    assert facts.deployment_block_hash == place.deployment.block_hash
    assert await service.bootnodes() == ("/ip4/192.0.2.7/tcp/1",)


@pytest.mark.parametrize("transport", ["url", "http_url"])
async def test_a_node_registers_and_follows_the_stages(place: Place, transport: str) -> None:
    """What happens on chain arrives as inputs, over either transport."""
    async with place.running(urls=(getattr(place.chain, transport),)) as node:
        assert (await node.until(StageOpened)).round == 0
        await node.execute(RegisterNode())
        done = await node.settled("register")
        assert done.ok
        assert done.transaction.startswith("0x")
        peer = await node.until(PeerRegistered)
        me = place.account.address.lower()
        assert peer == PeerRegistered(me, 1, me)
        place.advance()
        opened = await node.until(StageOpened, lambda one: one.stage == 1)
        assert (opened.deadline - opened.opened, opened.rewound) == (60, False)
    assert isinstance(node.inputs[0], ChainRestored)


async def test_known_peers_are_told_again_after_a_restart(place: Place) -> None:
    """A restarted node knows who takes part, and in which stage the swarm is."""
    for key in KEYS[1:]:
        place.register(key)
    place.chain.call("anvil_mine", "0x28")
    async with place.running() as node:
        await node.until(StageOpened)
        assert len([one for one in node.inputs if isinstance(one, PeerRegistered)]) == 3


async def test_advance_waits_for_the_chains_clock(place: Place) -> None:
    """A node whose clock runs ahead tries again until the deadline has passed for the chain too."""
    async with place.running() as node:
        await node.until(StageOpened)
        await node.execute(AdvanceStage(0, 0))
        await trio.sleep(1.0)
        assert not [one for one in node.inputs if isinstance(one, TransactionSettled)]
        place.chain.call("evm_increaseTime", 100)
        place.chain.call("evm_mine")
        assert (await node.settled("advance:0:0")).ok
        assert place.view("current")[:2] == (0, 1)


async def test_advance_of_a_stage_that_is_over_is_done(place: Place) -> None:
    """Somebody else was faster: nothing is sent, nothing is wrong."""
    place.advance()
    async with place.running() as node:
        await node.execute(AdvanceStage(0, 0))
        done = await node.settled("advance:0:0")
        assert (done.ok, done.transaction) == (True, "")
    assert place.nonce() == 0


async def test_a_registration_there_already_is_done(place: Place) -> None:
    """Registered by an earlier life of the node whose disk is lost."""
    place.register(KEYS[1])
    async with place.running() as node:
        await node.execute(RegisterNode())
        assert (await node.settled("register")).ok
    assert place.nonce() == 0


async def test_a_node_registers_for_its_owner(place: Place) -> None:
    """With an owner's delegation it brings that one; a newer one with a longer term is brought as a renewal."""
    node_address = place.account.address
    for term in (1_000, 100_000):
        signed = place.delegation(KEYS[2], KEYS[1], place.now() + term)
        async with place.running(delegation=signed) as node:
            await node.execute(RegisterNode())
            assert (await node.settled("register")).ok
            place.forget()
        owner, _, expiry, _ = place.view("nodes", node_address)
        assert (owner, expiry) == (other(), signed.delegation.expiry)
    assert place.nonce() == 2


async def test_the_same_key_under_another_owner_is_refused(place: Place) -> None:
    """The first owner keeps the node; nothing is sent."""
    place.register(KEYS[1], owner=KEYS[2])
    async with place.running() as node:
        await node.execute(RegisterNode())
        done = await node.settled("register")
    assert (done.ok, done.error, place.nonce()) == (False, "OtherOwner", 0)


async def test_a_pause_is_waited_out(place: Place) -> None:
    """What the organiser's pause refuses is done once it is over; pause and end are told with the deadline they make,
    and told again to a node that was away."""
    async with place.running() as node:
        opened = await node.until(StageOpened)
        send(place.chain.url, KEYS[0], place.deployment.address, "pause", 3600)
        paused = await node.until(PauseChanged)
        assert (paused.round, paused.stage, paused.deadline) == (0, 0, opened.deadline + 3600)
        await node.execute(RegisterNode())
        async with place.running() as late:
            assert await late.until(PauseChanged) == paused
            assert (await late.until(StageOpened)).deadline == paused.deadline
            late.stop.cancel()
        send(place.chain.url, KEYS[0], place.deployment.address, "resume")
        assert (await node.settled("register")).ok
        over = await node.until(PauseChanged, lambda one: one.until < paused.until)
        assert over.until <= place.now()
        assert paused.deadline - over.deadline == paused.until - over.until
    async with place.running() as node:
        assert (await node.until(StageOpened)).deadline == over.deadline
        assert not [one for one in node.inputs if isinstance(one, PauseChanged)]


async def test_a_refused_call_costs_no_transaction(place: Place) -> None:
    """The simulation tells the contract's error before a nonce is used."""
    async with place.running() as node:
        seed = (await node.until(StageOpened)).seed
        await node.execute(ReportReward(0, 0, seed, 0.5))
        done = await node.settled("reward:0:0")
        assert (done.ok, done.error) == (False, "NotRegistered")
    assert place.nonce() == 0


async def voter(place: Place, node: Running) -> StageOpened:
    """Register two nodes and go on until their first round can be voted on; return that round's first stage."""
    place.register(KEYS[2])
    await node.execute(RegisterNode())
    await node.settled("register")
    for _ in range(4):
        place.advance()
    await node.until(StageOpened, lambda one: one.round == 2)
    return await node.until(StageOpened, lambda one: one.round == 1)


async def test_what_waits_for_relayers_is_sent_when_it_is_asked_for_anew(place: Place) -> None:
    """A vote that was left to others for an hour goes out at once where the node, started again, says so."""
    async with place.running() as node:
        first = await voter(place, node)
        vote = CastVote(1, first.seed, (other(),), time.time() + 3600)
        await node.execute(vote)
        await trio.sleep(0.2)
        assert place.nonce() == 1
    async with place.running() as node:
        await node.until(StageOpened)
        await node.execute(msgspec.structs.replace(vote, after=0.0))
        done = await node.settled(f"vote:1:{first.seed.hex()}")
    assert (done.ok, place.nonce()) == (True, 2)


async def test_a_day_has_a_budget_for_others(place: Place) -> None:
    """What a relayer has spent on others counts over a restart: beyond the budget nothing is sent. The next day has
    a budget of its own."""
    later = 0.0
    budget: dict[str, Any] = {"relay_gas_per_day": 120_000, "clock": lambda: time.time() + later}

    async def brings(node: Running, turn: int) -> TransactionSettled:
        load = carried_delegation(place.delegation(KEYS[3], KEYS[turn]))
        await node.execute(RelayMessages("delegation", 0, 0, bytes(32), turn, (Load(load.node, load),)))
        return await node.settled(f"relay:delegation:0:0:{turn}")

    async with relaying(place, budget) as node:
        assert (await brings(node, 0)).ok
    async with relaying(place, budget) as node:
        done = await brings(node, 2)
        assert (done.ok, done.error, place.nonce()) == (False, "OverBudget", 1)
    later = 86_400.0
    async with relaying(place, budget) as node:
        assert (await brings(node, 2)).ok


@asynccontextmanager
async def relaying(place: Place, changed: dict[str, Any]) -> AsyncIterator[Running]:
    """Run a node that knows its deployment, and so may bring messages of others."""
    async with trio.open_nursery() as nursery:
        service = place.service(**changed)
        service.take_part(await service.describe(), None)
        running = Running(service, nursery.cancel_scope)
        nursery.start_soon(service.run, running.report)
        yield running
        nursery.cancel_scope.cancel()


async def test_a_running_node_takes_a_new_delegation(place: Place) -> None:
    """Signed anew, it is told as waiting with its serial, and brought when asked for; then nothing waits any more."""
    first, second = (place.delegation(KEYS[2], KEYS[1], place.now() + term) for term in (1_000, 100_000))
    async with trio.open_nursery() as nursery:
        service = place.service()
        facts = await service.describe()
        service.take_part(facts, first)
        node = Running(service, nursery.cancel_scope)
        nursery.start_soon(service.run, node.report)
        await node.execute(RegisterNode())
        assert (await node.until(DelegationRead)).expiry == first.delegation.expiry
        service.take_part(facts, second)
        waits = await node.until(DelegationRead, lambda one: one.renewal > 0)
        assert waits == DelegationRead(first.delegation.expiry, second.delegation.serial)
        await node.execute(RenewDelegation(waits.renewal))
        assert (await node.settled(f"renew:{waits.renewal}")).ok
        assert await node.until(DelegationRead, lambda one: one.expiry == second.delegation.expiry)
        nursery.cancel_scope.cancel()


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds on the chain."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the chain has no trio event to wait for
            await trio.sleep(0.02)


def other() -> str:
    return str(Account.from_key(KEYS[2]).address).lower()


async def test_the_guard_is_asked_before_a_vote_is_signed(place: Place) -> None:
    """Where the vote protection says no, nothing leaves the node."""
    guard = Permissive(answer=False)
    async with place.running(guard) as node:
        seed = (await voter(place, node)).seed
        before = place.nonce("pending")
        await node.execute(CastVote(1, seed, (other(),)))
        done = await node.settled(f"vote:1:{seed.hex()}")
    assert (done.ok, done.error, guard.asked) == (False, "VoteProtected", [("vote", 1)])
    assert place.nonce("pending") == before


async def test_a_vote_that_stands_already_is_done_and_another_is_not(place: Place, tmp_path: Path) -> None:
    """A node that lost its outbox recognises its own vote by its bytes."""
    async with place.running() as node:
        seed = (await voter(place, node)).seed
        await node.execute(CastVote(1, seed, (other(),)))
        assert (await node.settled(f"vote:1:{seed.hex()}")).ok
    place.home = tmp_path / "elsewhere"
    place.home.mkdir()
    async with place.running() as node:
        await node.execute(CastVote(1, seed, (other(),)))
        assert (await node.settled(f"vote:1:{seed.hex()}")).ok
    assert place.nonce() == 2


async def test_a_vote_outside_its_window_fails_for_good(place: Place) -> None:
    """Too late is settled as failed, with the contract's word."""
    async with place.running() as node:
        seed = (await voter(place, node)).seed
        place.advance()
        await node.execute(CastVote(1, seed, (other(),)))
        done = await node.settled(f"vote:1:{seed.hex()}")
        assert (done.ok, done.error) == (False, "WrongStep")


async def test_a_vote_for_a_round_that_a_reorg_replaced_is_not_sent(place: Place) -> None:
    """Votes bind to the seed: the same round number after a reorg is another round."""
    async with place.running() as node:
        await voter(place, node)
        await node.execute(CastVote(1, b"x" * 32, (other(),)))
        done = await node.settled(f"vote:1:{(b'x' * 32).hex()}")
        assert (done.ok, done.error) == (False, "SeedChanged")


async def test_a_frozen_chain_is_lost_and_restored(ticking: Place) -> None:
    """An endpoint that keeps the line and says nothing is noticed; what was asked meanwhile is done afterwards."""
    async with ticking.running() as node:
        await node.until(StageOpened)
        ticking.chain.freeze()
        await node.until(ChainLost)
        since = len(node.inputs)
        await node.execute(RegisterNode())
        ticking.chain.thaw()
        await node.until(ChainRestored, since=since)
        assert (await node.settled("register")).ok
        await node.until(StageOpened, since=since)
    assert ticking.nonce() == 1


async def test_a_killed_chain_comes_back_with_blocks_missing(ticking: Place) -> None:
    """What the chain forgot with its last blocks is sent again, the same transaction."""
    async with ticking.running() as node:
        await node.until(StageOpened)
        await trio.sleep(2.0)
        await node.execute(RegisterNode())
        first = await node.settled("register")
        ticking.chain.kill()
        await node.until(ChainLost)
        since = len(node.inputs)
        ticking.chain.start()
        await node.until(ChainRestored, since=since)
        await eventually(lambda: ticking.view("nodes", ticking.account.address)[1])
    assert ticking.nonce() == 1
    receipt = ticking.chain.call("eth_getTransactionReceipt", first.transaction)
    assert receipt["status"] == "0x1"


async def test_another_endpoint_takes_over(ticking: Place) -> None:
    """With a second URL a dead first one is no loss of the chain."""
    async with ticking.running(urls=("ws://127.0.0.1:9", ticking.chain.http_url)) as node:
        await node.execute(RegisterNode())
        assert (await node.settled("register")).ok
        assert not [one for one in node.inputs if isinstance(one, ChainLost)]


async def test_a_fresh_chain_at_the_same_url_is_refused(place: Place) -> None:
    """A chain that repeats ids and addresses is still another one: nothing of the old is sent to it."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.kill()
        await node.until(ChainLost)
        since = len(node.inputs)
        place.chain.start()
        place.chain.call("anvil_mine", "0x3", "0x7")
        deploy(place.chain.url, KEYS[0], Parameters(stage_seconds=(60, 60), manifest_digest=b"m" * 32))
        await node.execute(RegisterNode())
        await trio.sleep(2.0)
        assert not [one for one in node.inputs[since:] if isinstance(one, ChainRestored)]
    assert place.nonce() == 0


async def test_a_reorg_across_a_stage_rewinds(place: Place) -> None:
    """The stage that a reorg took away is told as it is now, marked."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.call("anvil_mine", "0x5")
        place.advance()
        await node.until(StageOpened, lambda one: one.stage == 1)
        since = len(node.inputs)
        place.chain.call("anvil_reorg", 3, [])
        place.chain.call("evm_mine")
        back = await node.until(StageOpened, since=since)
        assert (back.round, back.stage, back.rewound) == (0, 0, True)


async def test_a_reorged_transaction_is_sent_again(place: Place) -> None:
    """A registration that left the chain with its block comes back without being asked for."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.call("anvil_mine", "0x5")
        await node.execute(RegisterNode())
        await node.settled("register")
        place.chain.call("anvil_reorg", 3, [])
        place.chain.call("evm_mine")
        await eventually(lambda: place.view("nodes", place.account.address)[1])
    assert place.nonce() == 1


async def test_confirmations_are_waited_for(place: Place) -> None:
    """With k confirmations a stage opens, and a transaction settles, once k blocks lie on top."""
    async with place.running(confirmations=3) as node:
        await node.until(StageOpened)
        await node.execute(RegisterNode())
        await eventually(lambda: place.nonce() > 0)
        await trio.sleep(0.3)
        assert not [one for one in node.inputs if isinstance(one, PeerRegistered | TransactionSettled)]
        place.chain.call("anvil_mine", "0x3")
        assert (await node.settled("register")).ok
        await node.until(PeerRegistered)


async def test_a_stuck_transaction_is_made_dearer(place: Place) -> None:
    """Fees that rose over the offer are met with the same nonce and a better one."""
    async with place.running(stuck_seconds=0.5) as node:
        await node.until(StageOpened)
        place.chain.call("evm_setAutomine", False)
        await node.execute(RegisterNode())
        await eventually(lambda: place.nonce("pending") > 0)
        deadline = time.monotonic() + PATIENCE
        while not [one for one in node.inputs if isinstance(one, TransactionSettled)]:
            assert time.monotonic() < deadline
            if place.nonce() == 0 and not _offered(place, 200 * 10**9):
                place.chain.call("anvil_setNextBlockBaseFeePerGas", hex(200 * 10**9))
            place.chain.call("evm_mine")
            await trio.sleep(0.2)
        assert (await node.settled("register")).ok
    mined = place.chain.call("eth_getTransactionByHash", (await node.settled("register")).transaction)
    assert (int(mined["nonce"], 16), int(mined["maxFeePerGas"], 16) >= 200 * 10**9) == (0, True)


def _offered(place: Place, fee: int) -> bool:
    pool = place.chain.call("txpool_content")
    offers = [one for sender in pool["pending"].values() for one in sender.values()]
    return any(int(one["maxFeePerGas"], 16) >= fee for one in offers)


async def test_a_restart_resumes_without_a_second_transaction(place: Place) -> None:
    """What was sent before the crash is found again, mined once, and settled."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.call("evm_setAutomine", False)
        await node.execute(RegisterNode())
        await eventually(lambda: place.nonce("pending") > 0)
    async with place.running() as node:
        await node.execute(RegisterNode())
        await node.until(StageOpened)
        await trio.sleep(0.3)
        place.chain.call("evm_mine")
        assert (await node.settled("register")).ok
        place.chain.call("evm_mine")
        await trio.sleep(0.3)
    assert place.nonce("pending") == 1


async def test_a_crash_between_storing_and_sending_sends_the_same_transaction(place: Place) -> None:
    """The signed form is on disk first: after the crash that very form is sent."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.call("evm_setAutomine", False)
        await node.execute(RegisterNode())
        await eventually(lambda: place.nonce("pending") > 0)
    (lost,) = place.chain.call("txpool_content")["pending"][place.account.address.lower()].values()
    place.chain.call("anvil_dropTransaction", lost["hash"])
    assert place.nonce("pending") == 0
    place.chain.call("evm_setAutomine", True)
    async with place.running() as node:
        done = await node.settled("register")
    assert (done.ok, done.transaction) == (True, lost["hash"])


async def test_what_was_settled_is_answered_again(place: Place) -> None:
    """A machine that replays its journal gets the same answer and causes nothing."""
    async with place.running() as node:
        await node.execute(RegisterNode())
        first = await node.settled("register")
    async with place.running() as node:
        await node.execute(RegisterNode())
        assert await node.settled("register") == first
    assert place.nonce() == 1
