"""Nodes of one owner, and a node without any money, beside each other for twenty rounds on a real chain."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from node.chain.relay.signatures import sign
from node.explain.leaderboard_rows import Leaderboard
from node.explain.regrade import Regraded
from node.explain.round_facts import Explanation, PeerFact
from node.identity import load_or_create, name_of
from node.identity.delegation_file import save_delegation, save_revocation
from node.identity.owner_orders import answered, order_of
from protocols.manifest import DataSpec, GameSpec, Limits, Manifest, StageSpec, VotingSpec
from protocols.typed_data import Delegation, Domain, Revocation
from tests.integration.small_swarm import Member, SmallSwarm

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

STAGE_SECONDS = 4
ROUNDS = 20
START_SECONDS = 60.0
PATIENCE = 40.0
OWNER, OTHER = Account.from_key(b"\x07" * 32), Account.from_key(b"\x08" * 32)
MANIFEST = Manifest(
    name="relay",
    data=DataSpec(held_out=4),
    game=GameSpec(num_prompts=3, min_prompts=2, num_generations=4, local_groups=4, external_groups=4),
    stages=(StageSpec(name="play", seconds=STAGE_SECONDS),),
    voting=VotingSpec(winners=2, minimum_groups=1),
    limits=Limits(turn_seconds=1),
)


SHORT, LONG = 2**31, 2**31 + 86_400
"""Expiries of first and renewed delegations, in chain seconds."""


class Played(msgspec.Struct):
    """A swarm after its rounds: two nodes of one owner, one of nobody else's, one without money; the first round that
    all of them played and the last one whose votes are closed."""

    swarm: SmallSwarm
    siblings: list[Member]
    poor: Member
    first: int
    last: int


def domain(swarm: SmallSwarm) -> Domain:
    _, _, _, chain_id, contract, salt, _ = swarm.contract.functions.eip712Domain().call()
    return Domain(chain_id, contract.lower(), bytes(salt))


def delegate(swarm: SmallSwarm, member: Member, owner: LocalAccount, expiry: int) -> None:
    """Have the owner take a member for its own, as `swarm login` does."""
    said = Delegation(str(owner.address).lower(), member.address, int(time.time() * 1000), expiry)
    order = order_of(domain(swarm), said)
    signed = answered(order, said.owner, sign(domain(swarm), said, owner))
    save_delegation(member.home, signed, load_or_create(member.home / "swarm.pem"))


def revoke(swarm: SmallSwarm, member: Member, owner: LocalAccount) -> None:
    """Have the owner let a member go, as `swarm logout` does where nobody has money."""
    said = Revocation(str(owner.address).lower(), member.address, int(time.time() * 1000))
    order = order_of(domain(swarm), said)
    save_revocation(member.home, answered(order, said.owner, sign(domain(swarm), said, owner)))


def expiry(swarm: SmallSwarm, member: Member) -> int:
    """Return the end of a member's delegation, as the contract has it."""
    return int(swarm.contract.functions.nodes(swarm.named(member.address)).call()[2])


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The swarm after twenty rounds in which all four nodes count."""
    with SmallSwarm(MANIFEST, tmp_path_factory.mktemp("relay"), (0.02,) * 4, without_money=(4,)) as swarm:
        siblings, poor = swarm.members[1:3], swarm.members[3]
        owned = [*((sibling, OWNER) for sibling in siblings), (poor, OTHER)]
        for member, owner in owned:
            delegate(swarm, member, owner, SHORT)
        for member in swarm.members:
            member.start()
        assert swarm.wait(START_SECONDS, lambda: len(swarm.registered()) == len(swarm.members))
        for member, owner in owned:
            delegate(swarm, member, owner, LONG)
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


def test_delegations_are_renewed_while_nodes_run(played: Played) -> None:
    """Signed anew after the start, each was taken and brought: by the node where it has money, else by a relayer."""
    assert {expiry(played.swarm, member) for member in (*played.siblings, played.poor)} == {LONG}
    renewed = played.swarm.contract.events.DelegationRenewed().get_logs(from_block=0)
    assert len(renewed) == 3


class OnePeer(msgspec.Struct):
    """What `swarm explain --peer --json` prints."""

    peer: PeerFact
    graded: tuple[Regraded, ...]


def swarm(command: str, member: Member, *args: str) -> bytes:
    """Return what a command prints about a member's directory, while its node runs."""
    asked = [sys.executable, "-m", "node.cli", command, "--data-dir", str(member.home), "--json", *args]
    done = subprocess.run(asked, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_a_round_is_explained_while_the_node_runs(played: Played) -> None:
    """The node without money names everybody, who brought its vote in which block, and the published tally; what it
    kept of another's rollouts is what grading them again gives."""
    number, poor = played.last - 1, played.poor
    addresses = {member.address for member in played.swarm.members}
    facts = msgspec.json.decode(swarm("explain", poor, "--round", str(number)), type=Explanation)
    ballots = [each for each in facts.deliveries if each.what in ("commit", "reveal")]
    ranked = [peer for peer in facts.peers if peer.rank]

    assert {peer.node.address for peer in facts.peers} == addresses
    assert all(peer.node.name for peer in facts.peers)
    assert [peer.rank for peer in ranked] == list(range(1, len(ranked) + 1))
    assert {node.address for node in facts.voted_for} == {peer.node.address for peer in ranked[:2]}
    assert [(each.state, each.by) for each in ballots] == [("mined", "another node")] * 2
    assert all(each.block and each.sender and each.sender.address in addresses for each in ballots)
    assert facts.tally is not None
    assert facts.tally.own
    assert facts.tally.votes == len(addresses)

    noted = msgspec.json.decode(swarm("explain", poor, "--round", str(number), "--offline"), type=Explanation)
    assert [(each.block, each.transaction) for each in noted.deliveries] == [
        (each.block, each.transaction) for each in facts.deliveries
    ]
    assert noted.tally is None

    best = ranked[0]
    told = msgspec.json.decode(swarm("explain", poor, "--round", str(number), "--peer", best.node.name), type=OnePeer)
    (again,) = told.graded
    assert told.peer == best
    assert again.note.endswith("as then")
    assert len(again.groups) == best.groups


def test_the_leaderboard_is_counted_from_the_chain(played: Played) -> None:
    """Every node has its place, owner and name; siblings' votes weigh half each."""
    board = msgspec.json.decode(swarm("leaderboard", played.poor), type=Leaderboard)
    owners = {place.node.address: place.node.owner for place in board.places}
    assert owners.keys() == {member.address for member in played.swarm.members}
    assert {owners[member.address] for member in played.siblings} == {OWNER.address.lower()}
    assert name_of(load_or_create(played.poor.home / "swarm.pem").peer_id) in {each.node.name for each in board.places}
    assert board.votes >= (ROUNDS - 2) * len(owners)
    assert sum(place.led for place in board.places) >= ROUNDS


def test_a_revocation_without_money_comes_on_chain(played: Played) -> None:
    """It waits in a file, travels with an announcement, is brought by a relayer, and its file is gone then."""
    swarm, poor = played.swarm, played.poor
    revoke(swarm, poor, OTHER)
    assert swarm.wait(PATIENCE, lambda: expiry(swarm, poor) < LONG)
    assert swarm.wait(PATIENCE, lambda: not (poor.home / "revocation.json").exists())
    assert b'"delegation.ending"' in (poor.home / "log").read_bytes()
