"""The chain service against a real anvil: registration, stages, delegations, votes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from eth_account import Account

from contracts import send
from node.localnet.local_chain import LocalChain
from node.machine.commands import AdvanceStage, CastVote, RegisterNode, RelayMessages, RenewDelegation, ReportReward
from node.machine.inputs import (
    ChainRestored,
    DelegationRead,
    PauseChanged,
    PeerRegistered,
    StageOpened,
    TransactionSettled,
)
from node.machine.transaction_keys import AdvanceKey, MessageKey, RegistrationKey, RelayKey, RenewalKey
from protocols.signed_messages import MessageKind, MessageTopic, RelayedMessage
from tests.integration.chain_place import KEYS, Permissive, Place, Running, other, place_on, vote_key, voter

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A chain that mines only with transactions and on demand."""
    with LocalChain(block_seconds=None, accounts=4) as chain:
        yield place_on(chain, tmp_path)


async def test_the_facts_are_what_was_deployed(place: Place) -> None:
    """A node learns from the contract what it has to compare with its manifest."""
    send(place.chain.url, KEYS[0], place.deployment.address, "addBootnode", "/ip4/192.0.2.7/tcp/1")
    service = place.service()
    facts = await service.read_facts()
    assert (facts.chain_id, facts.stage_seconds, facts.voting_mode) == (31337, (60, 60), "open")
    assert facts.manifest_digest == b"m" * 32
    assert facts.deployment_block_hash == place.deployment.block_hash
    assert await service.read_bootnodes() == ("/ip4/192.0.2.7/tcp/1",)


@pytest.mark.parametrize("transport", ["url", "http_url"])
async def test_a_node_registers_and_follows_the_stages(place: Place, transport: str) -> None:
    """What happens on chain arrives as inputs, over either transport."""
    async with place.running(urls=(getattr(place.chain, transport),)) as node:
        assert (await node.until(StageOpened)).round == 0
        await node.execute(RegisterNode())
        done = await node.settled(RegistrationKey())
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
        assert (await node.settled(AdvanceKey(0, 0))).ok
        assert place.view("current")[:2] == (0, 1)


async def test_advance_of_a_stage_that_is_over_is_done(place: Place) -> None:
    """Somebody else was faster: nothing is sent, nothing is wrong."""
    place.advance()
    async with place.running() as node:
        await node.execute(AdvanceStage(0, 0))
        done = await node.settled(AdvanceKey(0, 0))
        assert (done.ok, done.transaction) == (True, "")
    assert place.nonce() == 0


async def test_a_registration_there_already_is_done(place: Place) -> None:
    """Registered by an earlier life of the node whose disk is lost."""
    place.register(KEYS[1])
    async with place.running() as node:
        await node.execute(RegisterNode())
        assert (await node.settled(RegistrationKey())).ok
    assert place.nonce() == 0


async def test_a_node_registers_for_its_owner(place: Place) -> None:
    """With an owner's delegation it submits that one; a newer one with a longer term is submitted as a renewal."""
    node_address = place.account.address
    for term in (1_000, 100_000):
        signed = place.delegation(KEYS[2], KEYS[1], place.now() + term)
        async with place.running(delegation=signed) as node:
            await node.execute(RegisterNode())
            assert (await node.settled(RegistrationKey())).ok
            place.forget()
        owner, _, expiry, _ = place.view("nodes", node_address)
        assert (owner, expiry) == (other(), signed.delegation.expiry)
    assert place.nonce() == 2


async def test_the_same_key_under_another_owner_is_refused(place: Place) -> None:
    """The first owner keeps the node; nothing is sent."""
    place.register(KEYS[1], owner=KEYS[2])
    async with place.running() as node:
        await node.execute(RegisterNode())
        done = await node.settled(RegistrationKey())
    assert (done.ok, done.error, place.nonce()) == (False, "OtherOwner", 0)


async def test_a_pause_is_waited_out(place: Place) -> None:
    """What the organiser's pause refuses is done once it is over. Pause and end are reported with the new deadline, and
    again to a node that was away."""
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
        assert (await node.settled(RegistrationKey())).ok
        over = await node.until(PauseChanged, lambda one: one.until < paused.until)
        assert over.until <= place.now()
        assert paused.deadline - over.deadline == paused.until - over.until
    async with place.running() as node:
        assert (await node.until(StageOpened)).deadline == over.deadline
        assert not [one for one in node.inputs if isinstance(one, PauseChanged)]


async def test_a_refused_call_costs_no_transaction(place: Place) -> None:
    """The simulation shows the contract's error before a nonce is used."""
    async with place.running() as node:
        seed = (await node.until(StageOpened)).seed
        await node.execute(ReportReward(0, 0, seed, 0.5))
        done = await node.settled(MessageKey(MessageTopic(MessageKind.REWARD, 0, 0)))
        assert (done.ok, done.error) == (False, "NotRegistered")
    assert place.nonce() == 0


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
        done = await node.settled(vote_key(1, first.seed))
    assert (done.ok, place.nonce()) == (True, 2)


async def test_a_day_has_a_budget_for_others(place: Place) -> None:
    """What a relayer has spent on others counts over a restart: beyond the budget nothing is sent. The next day has
    a budget of its own; of a batch that is dearer, half is submitted."""
    later = 0.0
    topic = MessageTopic(MessageKind.DELEGATION)
    budget: dict[str, Any] = {"relay_gas_per_day": 120_000, "clock": lambda: time.time() + later}

    async def relays(node: Running, *numbers: int) -> TransactionSettled:
        orders = [place.delegation(KEYS[3], KEYS[number]) for number in numbers]
        turn, relayed = sum(numbers), tuple(RelayedMessage(order.node, order) for order in orders)
        await node.execute(RelayMessages(topic, 0, 0, bytes(32), turn, relayed))
        return await node.settled(RelayKey(topic, 0, 0, turn))

    async with relaying(place, budget) as node:
        assert (await relays(node, 0)).ok
    async with relaying(place, budget) as node:
        done = await relays(node, 2)
        assert (done.ok, done.error, place.nonce()) == (False, "OverBudget", 1)
    later = 86_400.0
    async with relaying(place, budget) as node:
        assert (await relays(node, 2, 3)).ok
    known = [place.view("nodes", Account.from_key(key).address)[1] for key in KEYS]
    assert known == [1, 0, 1, 0]


@asynccontextmanager
async def relaying(place: Place, changed: dict[str, Any]) -> AsyncIterator[Running]:
    """Run a node that knows its deployment, and so may relay messages of others."""
    async with trio.open_nursery() as nursery:
        service = place.service(**changed)
        service.join(await service.read_facts(), None)
        running = Running(service, nursery.cancel_scope)
        nursery.start_soon(service.run, running.report)
        yield running
        nursery.cancel_scope.cancel()


async def test_a_running_node_takes_a_new_delegation(place: Place) -> None:
    """It is reported as waiting, with its serial, and submitted when asked for; then nothing waits any more."""
    first, second = (place.delegation(KEYS[2], KEYS[1], place.now() + term) for term in (1_000, 100_000))
    async with trio.open_nursery() as nursery:
        service = place.service()
        facts = await service.read_facts()
        service.join(facts, first)
        node = Running(service, nursery.cancel_scope)
        nursery.start_soon(service.run, node.report)
        await node.execute(RegisterNode())
        assert (await node.until(DelegationRead)).expiry == first.delegation.expiry
        service.join(facts, second)
        waits = await node.until(DelegationRead, lambda one: one.renewal > 0)
        assert waits == DelegationRead(first.delegation.expiry, second.delegation.serial)
        await node.execute(RenewDelegation(waits.renewal))
        assert (await node.settled(RenewalKey(waits.renewal))).ok
        assert await node.until(DelegationRead, lambda one: one.expiry == second.delegation.expiry)
        nursery.cancel_scope.cancel()


async def test_the_guard_is_asked_before_a_vote_is_signed(place: Place) -> None:
    """Where the vote protection says no, nothing leaves the node."""
    guard = Permissive(answer=False)
    async with place.running(guard) as node:
        seed = (await voter(place, node)).seed
        before = place.nonce("pending")
        await node.execute(CastVote(1, seed, (other(),)))
        done = await node.settled(vote_key(1, seed))
    assert (done.ok, done.error, guard.asked) == (False, "VoteProtected", [("vote", 1)])
    assert place.nonce("pending") == before


async def test_a_vote_that_stands_already_is_done_and_another_is_not(place: Place, tmp_path: Path) -> None:
    """A node that lost its outbox recognises its own vote by its bytes."""
    async with place.running() as node:
        seed = (await voter(place, node)).seed
        await node.execute(CastVote(1, seed, (other(),)))
        assert (await node.settled(vote_key(1, seed))).ok
    place.home = tmp_path / "elsewhere"
    place.home.mkdir()
    async with place.running() as node:
        await node.execute(CastVote(1, seed, (other(),)))
        assert (await node.settled(vote_key(1, seed))).ok
    assert place.nonce() == 2


async def test_a_vote_outside_its_window_fails_for_good(place: Place) -> None:
    """Too late is settled as failed, with the contract's word."""
    async with place.running() as node:
        seed = (await voter(place, node)).seed
        place.advance()
        await node.execute(CastVote(1, seed, (other(),)))
        done = await node.settled(vote_key(1, seed))
        assert (done.ok, done.error) == (False, "WrongStep")


async def test_a_vote_for_a_round_that_a_reorg_replaced_is_not_sent(place: Place) -> None:
    """Votes bind to the seed: the same round number after a reorg is another round."""
    async with place.running() as node:
        await voter(place, node)
        await node.execute(CastVote(1, b"x" * 32, (other(),)))
        done = await node.settled(vote_key(1, b"x" * 32))
        assert (done.ok, done.error) == (False, "SeedChanged")
