"""Nodes of one owner, and a node without any money, beside each other for twenty rounds on a real chain."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest
from eth_account import Account

from node.chain.batches import sign
from node.identity import load_or_create
from node.identity.delegation import save_delegation
from node.identity.orders import answered, order_of
from protocols.manifest import DataSpec, GameSpec, Limits, Manifest, StageSpec, VotingSpec
from protocols.typed_data import Delegation, Domain
from tests.integration.small_swarm import Member, SmallSwarm

pytestmark = pytest.mark.integration

STAGE_SECONDS = 4
ROUNDS = 20
START_SECONDS = 60.0
OWNER = Account.from_key(b"\x07" * 32)
MANIFEST = Manifest(
    name="relay",
    data=DataSpec(held_out=4),
    game=GameSpec(generated=3, minimum=2, group_size=4, own=4, external=4),
    stages=(StageSpec(name="play", seconds=STAGE_SECONDS),),
    voting=VotingSpec(winners=2, minimum_groups=1),
    limits=Limits(turn_seconds=1),
)


class Played(msgspec.Struct):
    """A swarm after its rounds: two nodes of one owner, one of nobody else's, one without money; the first round that
    all of them played and the last one whose votes are closed."""

    swarm: SmallSwarm
    siblings: list[Member]
    poor: Member
    first: int
    last: int


def delegate(swarm: SmallSwarm, member: Member) -> None:
    """Have the owner take a member for its own, as `swarm login` does."""
    _, _, _, chain_id, contract, salt, _ = swarm.contract.functions.eip712Domain().call()
    domain = Domain(chain_id, contract.lower(), bytes(salt))
    owner = OWNER.address.lower()
    said = Delegation(owner, member.address, int(time.time() * 1000), 2**40)
    key = load_or_create(member.home / "swarm.pem")
    save_delegation(member.home, answered(order_of(domain, said), owner, sign(domain, said, OWNER)), key)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The swarm after twenty rounds in which all four nodes count."""
    with SmallSwarm(MANIFEST, tmp_path_factory.mktemp("relay"), (0.02,) * 4, without_money=(4,)) as swarm:
        siblings, poor = swarm.members[1:3], swarm.members[3]
        for member in siblings:
            delegate(swarm, member)
        for member in swarm.members:
            member.start()
        assert swarm.wait(START_SECONDS, lambda: len(swarm.registered()) == len(swarm.members))
        first = max(swarm.registered().values()) + 1
        last = first + ROUNDS - 1
        patience = START_SECONDS + (ROUNDS + 6) * (STAGE_SECONDS + 2)
        assert swarm.wait(patience, lambda: swarm.round() >= last + 3)
        yield Played(swarm, siblings, poor, first, last)


def test_two_nodes_of_one_owner_vote_side_by_side(played: Played) -> None:
    """Started together, both are the owner's and vote once in each of twenty rounds; no transaction was in vain."""
    for member in played.siblings:
        assert played.swarm.contract.functions.nodes(played.swarm.named(member.address)).call()[0] == OWNER.address
        votes = played.swarm.rounds_voted(member.address)
        assert [votes[number] for number in range(played.first, played.last + 1)] == [1] * ROUNDS
        assert played.swarm.failed_transactions(member.address) == []


def test_a_node_without_money_has_its_votes_on_chain(played: Played) -> None:
    """It never had any balance nor sent a transaction, registration included, and its votes were counted."""
    swarm, poor = played.swarm, played.poor
    newest = int(swarm.chain.call("eth_blockNumber"), 16)
    balances = {swarm.chain.call("eth_getBalance", poor.address, hex(number)) for number in range(1, newest + 1)}
    votes = swarm.rounds_voted(poor.address)
    voted = [number for number in range(played.first, played.last + 1) if votes[number]]

    assert int(swarm.chain.call("eth_getTransactionCount", poor.address, "latest"), 16) == 0
    assert balances == {"0x0"}
    assert max(votes.values()) == 1
    assert len(voted) >= ROUNDS - 2


def test_nobody_pays_twice_for_a_vote(played: Played) -> None:
    """No batch brought an entry that stood on chain already: the contract skipped nothing."""
    skipped = played.swarm.contract.events.Skipped().get_logs(from_block=0)
    assert [dict(log["args"]) for log in skipped] == []
