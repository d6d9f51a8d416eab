"""Votes, commitments, reveals and rewards that somebody else submits, many at once."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from node.chain.contract.abi import DecodedEvent
from node.chain.contract.swarm import ABI
from node.chain.relay.batch_calls import (
    commitments_call,
    reveals_call,
    revocations_call,
    rewards_call,
    votes_call,
)
from node.chain.relay.signatures import compact, sign, signer_of
from node.localnet.local_chain import LocalChain
from protocols.identifiers import Address
from protocols.signed_messages import SignedCommitment, SignedReward, SignedVote, VoteReveal
from protocols.typed_data import Commitment, Reward, Vote
from protocols.voting import vote_commitment
from tests.contracts.conftest import Refused, Swarm, key, parameters, skipped, votes_in

pytestmark = pytest.mark.integration

SALT = b"s" * 32


@pytest.fixture
def ballot(open_swarm: Swarm) -> Swarm:
    """Open; accounts 1 to 6 count in round 1, which is voted on."""
    open_swarm.counted(*range(1, 7))
    open_swarm.next_round()
    return open_swarm


@pytest.fixture
def urn(swarm: Swarm) -> Swarm:
    """The same, sealed."""
    swarm.counted(*range(1, 7))
    swarm.next_round()
    return swarm


def named(swarm: Swarm, *numbers: int) -> tuple[str, ...]:
    return tuple(sorted(swarm.accounts[number] for number in numbers))


def seed(swarm: Swarm, round_number: int = 1) -> bytes:
    return bytes(swarm.view("seedOf", round_number))


def vote(swarm: Swarm, voter: int, *winners: int, signer: int | None = None) -> SignedVote:
    said = Vote(1, seed(swarm), named(swarm, *winners))
    return SignedVote.of(said, swarm.sign(voter if signer is None else signer, said))


def reveal(swarm: Swarm, voter: int, *winners: int) -> tuple[Address, VoteReveal]:
    return swarm.accounts[voter], VoteReveal(1, named(swarm, *winners), SALT)


def commitment(swarm: Swarm, voter: int, *winners: int) -> SignedCommitment:
    made = vote_commitment(1, seed(swarm), swarm.accounts[voter], named(swarm, *winners), SALT)
    said = Commitment(1, seed(swarm), made)
    return SignedCommitment.of(said, swarm.sign(voter, said))


def reward(swarm: Swarm, node: int, amount: int, stage: int = 0) -> SignedReward:
    said = Reward(1, stage, seed(swarm), amount)
    return SignedReward.of(said, swarm.sign(node, said))


def rewards_in(events: list[DecodedEvent]) -> dict[str, int]:
    return {event.fields["node"]: event.fields["reward"] for event in events if event.name == "RewardSubmitted"}


# --- open -------------------------------------------------------------------------------------------------------------


def test_signed_votes_count_for_who_signed_them(ballot: Swarm) -> None:
    """The voters have no money and send nothing."""
    for voter in (1, 2):
        ballot.chain.call("anvil_setBalance", ballot.accounts[voter], "0x0")
    events = ballot.submit(votes_call(1, [vote(ballot, 1, 2, 3), vote(ballot, 2, 4)]))
    assert votes_in(events) == {ballot.accounts[1]: named(ballot, 2, 3), ballot.accounts[2]: named(ballot, 4)}
    assert ballot.view("ballotsOf", ballot.accounts[1:4], 1)[0] == (2, 2, 0)


def test_bad_votes_do_not_sink_good_ones(ballot: Swarm) -> None:
    """Doubles, strangers, votes for oneself, too many winners, unsorted, uncounted: each is told, the rest counts."""
    ballot.register(7)
    unsorted = Vote(1, seed(ballot), named(ballot, 2, 3)[::-1])
    votes = [
        vote(ballot, 1, 2, 3),
        vote(ballot, 1, 4),
        vote(ballot, 30, 2),
        vote(ballot, 2, 2, 3),
        vote(ballot, 3, 1, 2, 4, 5),
        vote(ballot, 4, 7),
        vote(ballot, 7, 2),
        SignedVote.of(unsorted, ballot.sign(4, unsorted)),
        vote(ballot, 5),
        replace(vote(ballot, 5, 2), signature=bytes(64) + b"\x1b"),
        vote(ballot, 6, 2),
    ]
    events = ballot.submit(votes_call(1, votes))
    assert set(votes_in(events)) == {ballot.accounts[1], ballot.accounts[6]}
    assert skipped(events) == {
        1: "AlreadyVoted",
        2: "NotRegistered",
        3: "SelfVote",
        4: "WinnersOutOfBounds",
        5: "WinnerNotCounted",
        6: "NotCounted",
        7: "WinnersNotAscending",
        8: "WinnersOutOfBounds",
        9: "NotRegistered",
    }


def test_nothing_new_costs_no_more_than_the_asking(ballot: Swarm) -> None:
    """A batch of which all stands already is refused, so that a relay's simulation says so."""
    data = votes_call(1, [vote(ballot, 1, 2)])
    ballot.submit(data)
    with pytest.raises(Refused, match="NothingCounted"):
        ballot.submit(data)


def test_votes_of_another_seed_contract_or_chain_are_strangers(chain: LocalChain, ballot: Swarm) -> None:
    """What was signed elsewhere recovers to nobody who is registered."""
    other = Swarm(chain, parameters(mode="open"))
    said = Vote(1, seed(ballot), named(ballot, 2))
    domains = [other.domain, replace(ballot.domain, chain_id=1), replace(ballot.domain, salt=bytes(32))]
    votes = [SignedVote.of(said, sign(domain, said, key(1))) for domain in domains]
    for changed in (replace(said, seed=b"x" * 32), replace(said, round=2)):
        votes.append(SignedVote.of(said, ballot.sign(1, changed)))
    events = ballot.submit(votes_call(1, [*votes, vote(ballot, 1, 2)]))
    assert skipped(events) == dict.fromkeys(range(5), "NotRegistered")


def test_a_direct_vote_and_a_submitted_one_are_the_same_vote(ballot: Swarm) -> None:
    """Whoever is first, the other is told."""
    ballot.send(1, "submitWinners", 1, seed(ballot), list(named(ballot, 2)))
    assert skipped(ballot.submit(votes_call(1, [vote(ballot, 1, 3), vote(ballot, 2, 3)]))) == {0: "AlreadyVoted"}
    with pytest.raises(Refused, match="AlreadyVoted"):
        ballot.send(2, "submitWinners", 1, seed(ballot), list(named(ballot, 3)))


def test_a_batch_has_the_window_of_a_vote(ballot: Swarm) -> None:
    """Closed rounds stay closed, and none opens early."""
    said = vote(ballot, 1, 2)
    with pytest.raises(Refused, match="WrongStep"):
        ballot.submit(votes_call(2, [said]))
    ballot.next_stage()
    with pytest.raises(Refused, match="WrongStep"):
        ballot.submit(votes_call(1, [said]))


def test_expired_and_revoked_nodes_have_no_vote(ballot: Swarm) -> None:
    """What a thief signs after the revocation does not count, and what was signed before it no more."""
    early = vote(ballot, 1, 2)
    ballot.submit(revocations_call([ballot.revocation(1)]))
    assert skipped(ballot.submit(votes_call(1, [early, vote(ballot, 2, 3)]))) == {0: "DelegationOver"}


def test_a_revocation_reaches_a_node_that_has_voted_before(ballot: Swarm) -> None:
    """The copy of the expiry beside the last vote follows the register, in both directions."""
    ballot.submit(votes_call(1, [vote(ballot, 1, 2)]))
    ballot.submit(revocations_call([ballot.revocation(1)]))
    ballot.next_round()
    said = Vote(2, seed(ballot, 2), named(ballot, 2))
    mine = SignedVote.of(said, ballot.sign(1, said))
    with pytest.raises(Refused, match="NothingCounted"):
        ballot.submit(votes_call(2, [mine]))
    ballot.register(1)
    assert list(votes_in(ballot.submit(votes_call(2, [mine])))) == [ballot.accounts[1]]


def test_garbage_sinks_nothing_before_it(ballot: Swarm) -> None:
    """Bytes cut short, and places beyond the list, are told."""
    good = compact(vote(ballot, 1, 2).signature) + b"\x01\x00\x00"
    far = compact(vote(ballot, 2, 2).signature) + b"\x01\xff\xff"
    empty = compact(vote(ballot, 3, 2).signature) + b"\x00"
    events = ballot.submit(ABI.call("submitVotes", 1, list(named(ballot, 2)), far + good + empty + good[:-1]))
    assert list(votes_in(events)) == [ballot.accounts[1]]
    assert skipped(events) == {0: "WinnerNotCounted", 2: "WinnersOutOfBounds", 3: "Malformed"}


def test_random_bytes_count_for_nobody(ballot: Swarm, urn: Swarm) -> None:
    """Whatever is sent as a batch, nothing but signed votes gets in: all of it is refused."""
    dice = random.Random(7)
    for _ in range(25):
        blob = dice.randbytes(dice.choice([1, 64, 65, 67, 96, 97, 500, 2000]))
        names = list(named(ballot, *dice.sample(range(1, 9), dice.randint(0, 5))))
        for swarm, call in (
            (ballot, ABI.call("submitVotes", 1, names, blob)),
            (ballot, ABI.call("submitRewards", 1, 0, blob)),
            (urn, ABI.call("commitVotes", 1, blob)),
        ):
            with pytest.raises(Refused, match="NothingCounted"):
                swarm.submit(call)
    with pytest.raises(Refused, match="NothingCounted"):
        ballot.submit(votes_call(1, []))


def test_sixteen_winners_travel_whole(chain: LocalChain) -> None:
    """The most that a swarm may allow fits an entry, in either mode."""
    swarm = Swarm(chain, parameters(mode="open", winners=16))
    swarm.counted(*range(1, 19))
    swarm.next_round()
    said = vote(swarm, 1, *range(2, 18))
    assert votes_in(swarm.submit(votes_call(1, [said, vote(swarm, 18, 3)]))) == {
        swarm.accounts[1]: named(swarm, *range(2, 18)),
        swarm.accounts[18]: named(swarm, 3),
    }
    with pytest.raises(Refused, match="WinnersOutOfBounds"):
        swarm.send(2, "submitWinners", 1, seed(swarm), list(named(swarm, 1, *range(3, 19))))


# --- sealed -----------------------------------------------------------------------------------------------------------


def test_commitments_and_reveals_are_submitted_by_anybody(urn: Swarm) -> None:
    """A reveal needs no signature: the salt is proof enough."""
    commitments = [commitment(urn, 1, 2, 3), commitment(urn, 2, 4), commitment(urn, 1, 4), commitment(urn, 30, 2)]
    events = urn.submit(commitments_call(1, commitments))
    assert [event.fields["node"] for event in events if event.name == "VoteCommitted"] == urn.accounts[1:3]
    assert skipped(events) == {2: "AlreadyVoted", 3: "NotRegistered"}
    urn.next_stage()
    reveals = [reveal(urn, 1, 2, 3), reveal(urn, 1, 2, 3), reveal(urn, 2, 3), reveal(urn, 3, 4), reveal(urn, 2, 4)]
    events = urn.submit(reveals_call(1, reveals))
    assert votes_in(events) == {urn.accounts[1]: named(urn, 2, 3), urn.accounts[2]: named(urn, 4)}
    assert skipped(events) == {1: "AlreadyVoted", 2: "BadReveal", 3: "NotCommitted"}


def test_a_copied_commitment_is_worthless(urn: Swarm) -> None:
    """Signed by the copyist it opens for nobody; submitted under the victim's name it is the victim's."""
    mine = commitment(urn, 1, 2)
    said = Commitment(1, seed(urn), mine.commitment)
    copied = SignedCommitment.of(said, urn.sign(4, said))
    urn.submit(commitments_call(1, [copied, mine]))
    urn.next_stage()
    events = urn.submit(reveals_call(1, [reveal(urn, 4, 2), reveal(urn, 1, 2)]))
    assert list(votes_in(events)) == [urn.accounts[1]]
    assert skipped(events) == {0: "BadReveal"}


def test_a_vote_for_oneself_is_not_revealed(urn: Swarm) -> None:
    """Nor one with winners that do not count; whoever commits to such a vote has wasted it."""
    urn.submit(commitments_call(1, [commitment(urn, 1, 1, 2), commitment(urn, 2, 8), commitment(urn, 3, 1)]))
    urn.next_stage()
    events = urn.submit(reveals_call(1, [reveal(urn, 1, 1, 2), reveal(urn, 2, 8), reveal(urn, 3, 1)]))
    assert skipped(events) == {0: "SelfVote", 1: "WinnerNotCounted"}
    assert list(votes_in(events)) == [urn.accounts[3]]


def test_reveals_cut_short_are_told(urn: Swarm) -> None:
    """What came before them counts."""
    urn.submit(commitments_call(1, [commitment(urn, 1, 2)]))
    urn.next_stage()
    good = bytes.fromhex(urn.accounts[1][2:]) + SALT + b"\x01\x00\x00"
    events = urn.submit(ABI.call("revealVotes", 1, list(named(urn, 2)), good + good[:30]))
    assert list(votes_in(events)) == [urn.accounts[1]]
    assert list(skipped(events)) == [1]


# --- rewards ----------------------------------------------------------------------------------------------------------


def test_rewards_are_submitted_by_anybody_once_each(urn: Swarm) -> None:
    """Good ones count beside doubles, strangers and what is out of bounds."""
    rewards = [
        reward(urn, 1, 500_000),
        reward(urn, 1, 900_000),
        reward(urn, 30, 1),
        reward(urn, 2, -250_000),
        reward(urn, 3, 10**12 + 1),
        reward(urn, 4, 7, stage=1),
    ]
    events = urn.submit(rewards_call(1, 0, rewards))
    assert rewards_in(events) == {urn.accounts[1]: 500_000, urn.accounts[2]: -250_000}
    assert skipped(events) == {
        1: "RewardAlreadySubmitted",
        2: "NotRegistered",
        4: "RewardOutOfBounds",
        5: "NotRegistered",
    }
    urn.submit(rewards_call(1, 1, [reward(urn, 4, 7, stage=1), reward(urn, 1, 8, stage=1)]))
    assert urn.view("rewardsOf", urn.accounts[1:6], 1) == (3, 1, 0, 2, 0)


def test_rewards_of_two_rounds_lie_apart(urn: Swarm) -> None:
    """Late rewards of the last round do not close the present one's, in whatever order they come."""
    for said in (2, 1):
        urn.send(1, "submitReward", said, 0, seed(urn, said), 1)
    urn.send(1, "submitReward", 1, 1, seed(urn), 1)
    assert [urn.view("rewardsOf", [urn.accounts[1]], said) for said in (1, 2)] == [(3,), (1,)]
    for said, stage in ((2, 0), (1, 0), (1, 1)):
        with pytest.raises(Refused, match="RewardAlreadySubmitted"):
            urn.send(1, "submitReward", said, stage, seed(urn, said), 1)


# --- what a relay can tell before -------------------------------------------------------------------------------------


def test_a_relay_knows_who_signed(ballot: Swarm) -> None:
    """The same answer as the contract's; None for what is no signature."""
    good = vote(ballot, 1, 2)
    said = Vote(1, seed(ballot), good.winners)
    assert signer_of(ballot.domain, said, good.signature) == ballot.accounts[1]
    assert signer_of(ballot.domain, replace(said, round=2), good.signature) != ballot.accounts[1]
    assert signer_of(ballot.domain, said, b"x" * 64) is None
    assert signer_of(ballot.domain, said, bytes(65)) is None
