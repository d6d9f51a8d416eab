"""Votes and rewards: windows, bounds, once each."""

from __future__ import annotations

import pytest

from node.chain.relay.batch_calls import revocations_call
from node.localnet.local_chain import LocalChain
from protocols.schedule import commit_step, reveal_step, step_number
from protocols.voting import vote_commitment
from tests.contracts.conftest import Refused, Swarm, parameters, votes_in

pytestmark = pytest.mark.integration

SALT = b"s" * 32


@pytest.fixture
def voting(swarm: Swarm) -> Swarm:
    """Sealed; accounts 1 to 5 count in round 1; it is the stage in which round 1 is voted on."""
    swarm.counted(1, 2, 3, 4, 5)
    swarm.next_round()
    return swarm


@pytest.fixture
def voting_open(open_swarm: Swarm) -> Swarm:
    """The same with open votes."""
    open_swarm.counted(1, 2, 3, 4, 5)
    open_swarm.next_round()
    return open_swarm


def named(swarm: Swarm, *numbers: int) -> list[str]:
    return sorted(swarm.accounts[number] for number in numbers)


def seed(swarm: Swarm, round_number: int = 1) -> bytes:
    return bytes(swarm.view("seedOf", round_number))


def sealed(swarm: Swarm, voter: int, winners: list[str], round_number: int = 1) -> bytes:
    return vote_commitment(round_number, seed(swarm, round_number), swarm.accounts[voter], winners, SALT)


def test_a_sealed_vote_counts_once_revealed(voting: Swarm) -> None:
    """The commitment is that of `protocols.voting`, and the reveal tells the winners."""
    winners = named(voting, 2, 3)
    (committed,) = voting.send(1, "commitVote", 1, seed(voting), sealed(voting, 1, winners))
    voting.next_stage()
    (event,) = voting.send(1, "revealVote", 1, winners, SALT)
    assert committed.name == "VoteCommitted"
    assert event.fields["round"] == 1
    assert votes_in([event]) == {voting.accounts[1]: tuple(winners)}
    assert voting.view("ballotOf", voting.accounts[1], 1) == (2, sealed(voting, 1, winners)[:23])


def test_the_commitment_is_the_same_in_both_languages(voting: Swarm) -> None:
    """Whoever recomputes votes from events gets what the contract checked."""
    winners = named(voting, 2, 3)
    assert voting.view("voteCommitment", 1, voting.accounts[1], winners, SALT) == sealed(voting, 1, winners)


def test_a_second_commitment_is_refused(voting: Swarm) -> None:
    """One vote per peer and round."""
    voting.send(1, "commitVote", 1, seed(voting), sealed(voting, 1, named(voting, 2)))
    with pytest.raises(Refused, match="AlreadyVoted"):
        voting.send(1, "commitVote", 1, seed(voting), sealed(voting, 1, named(voting, 3)))


def test_a_second_reveal_is_refused(voting: Swarm) -> None:
    """A vote can't be counted twice by revealing it again."""
    winners = named(voting, 2)
    voting.send(1, "commitVote", 1, seed(voting), sealed(voting, 1, winners))
    voting.next_stage()
    voting.send(1, "revealVote", 1, winners, SALT)
    with pytest.raises(Refused, match="AlreadyVoted"):
        voting.send(1, "revealVote", 1, winners, SALT)


def test_a_copied_commitment_is_worthless(voting: Swarm) -> None:
    """Who copies a commitment and later the reveal does not get a vote."""
    winners = named(voting, 2)
    commitment = sealed(voting, 1, winners)
    voting.send(1, "commitVote", 1, seed(voting), commitment)
    voting.send(4, "commitVote", 1, seed(voting), commitment)
    voting.next_stage()
    voting.send(1, "revealVote", 1, winners, SALT)
    with pytest.raises(Refused, match="BadReveal"):
        voting.send(4, "revealVote", 1, winners, SALT)


def test_other_winners_than_committed_are_refused(voting: Swarm) -> None:
    """Nobody changes a vote after having seen those of others."""
    voting.send(1, "commitVote", 1, seed(voting), sealed(voting, 1, named(voting, 2)))
    voting.next_stage()
    with pytest.raises(Refused, match="BadReveal"):
        voting.send(1, "revealVote", 1, named(voting, 3), SALT)


def test_a_reveal_needs_a_commitment(voting: Swarm) -> None:
    """Waiting for others' votes before deciding is no way to vote."""
    voting.next_stage()
    with pytest.raises(Refused, match="NotCommitted"):
        voting.send(1, "revealVote", 1, named(voting, 2), SALT)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_windows_are_those_of_the_schedule(chain: LocalChain, stages: int) -> None:
    """A round's votes are committed and revealed in exactly one step each, those of `protocols.schedule`."""
    swarm = Swarm(chain, parameters(stages=stages))
    swarm.counted(1, 2)
    voted = swarm.view("current")[0]
    winners = named(swarm, 2)
    commitment = sealed(swarm, 1, winners, voted)
    committed: list[int] = []
    revealed: list[int] = []
    last = step_number(voted + 2, 1, stages) + 1
    while (step := swarm.step(stages)) <= last:
        for function, arguments, accepted in (
            ("commitVote", [voted, seed(swarm, voted), commitment], committed),
            ("revealVote", [voted, winners, SALT], revealed),
        ):
            try:
                swarm.send(1, function, *arguments)
                accepted.append(step)
            except Refused as refused:
                assert str(refused) == "WrongStep" or accepted  # noqa: PT017 - the refusal's name is the point
        swarm.next_stage()
    assert (committed, revealed) == ([commit_step(voted, stages)], [reveal_step(voted, stages)])


def test_one_stage_rounds_take_a_reveal_and_the_next_commitment_together(chain: LocalChain) -> None:
    """Where two votes overlap, neither overwrites the other."""
    swarm = Swarm(chain, parameters(stages=1))
    swarm.counted(1, 2)
    first = swarm.view("current")[0]
    winners = named(swarm, 2)
    for voted in range(first, first + 4):
        swarm.next_round()
        swarm.send(1, "commitVote", voted, seed(swarm, voted), sealed(swarm, 1, winners, voted))
        if voted > first:
            swarm.send(1, "revealVote", voted - 1, winners, SALT)
    assert swarm.view("ballotOf", swarm.accounts[1], first + 2)[0] == 2


@pytest.mark.parametrize(
    ("winners", "error"),
    [
        ([], "WinnersOutOfBounds"),
        ([2, 3, 4, 5], "WinnersOutOfBounds"),
        ([2, 2], "WinnersNotAscending"),
        ([1, 2], "SelfVote"),
        ([2, 8], "WinnerNotCounted"),
        ([2, 6], "WinnerNotCounted"),
    ],
)
def test_senseless_winners_are_refused(voting_open: Swarm, winners: list[int], error: str) -> None:
    """Winners are bounded, distinct, other nodes than the voter, and took part in the round."""
    voting_open.register(6)
    with pytest.raises(Refused, match=error):
        voting_open.send(1, "submitWinners", 1, seed(voting_open), named(voting_open, *winners))


def test_unsorted_winners_are_refused(voting_open: Swarm) -> None:
    """There is one way to write a vote, so that equal votes have equal bytes."""
    with pytest.raises(Refused, match="WinnersNotAscending"):
        voting_open.send(1, "submitWinners", 1, seed(voting_open), named(voting_open, 2, 3)[::-1])


def test_an_open_vote_counts_at_once_and_once(voting_open: Swarm) -> None:
    """In the open mode the winners are told with the vote."""
    (event,) = voting_open.send(1, "submitWinners", 1, seed(voting_open), named(voting_open, 2, 3))
    assert votes_in([event]) == {voting_open.accounts[1]: tuple(named(voting_open, 2, 3))}
    with pytest.raises(Refused, match="AlreadyVoted"):
        voting_open.send(1, "submitWinners", 1, seed(voting_open), named(voting_open, 3))


def test_strangers_do_not_vote(voting: Swarm, voting_open: Swarm) -> None:
    """Who is not registered has no vote in either mode."""
    with pytest.raises(Refused, match="NotRegistered"):
        voting.send(8, "commitVote", 1, seed(voting), b"c" * 32)


def test_a_newcomer_does_not_vote_on_rounds_before_its_own(voting_open: Swarm) -> None:
    """A vote on a round belongs to those who took part in it."""
    voting_open.register(6)
    with pytest.raises(Refused, match="NotCounted"):
        voting_open.send(6, "submitWinners", 1, seed(voting_open), named(voting_open, 2))


def test_each_mode_refuses_the_others_calls(voting: Swarm) -> None:
    """A sealed swarm takes no open votes: they would tell the others."""
    with pytest.raises(Refused, match="WrongMode"):
        voting.send(1, "submitWinners", 1, seed(voting), named(voting, 2))


def test_an_open_swarm_takes_no_commitments(voting_open: Swarm) -> None:
    """Nor reveals."""
    with pytest.raises(Refused, match="WrongMode"):
        voting_open.send(1, "commitVote", 1, seed(voting_open), b"c" * 32)
    with pytest.raises(Refused, match="WrongMode"):
        voting_open.send(1, "revealVote", 1, named(voting_open, 2), SALT)


def test_a_reward_is_submitted_once_per_round_and_stage(swarm: Swarm) -> None:
    """Negative rewards are rewards; a second one for the same stage is not."""
    swarm.counted(1)
    (event,) = swarm.send(1, "submitReward", 1, 0, seed(swarm, 1), -250_000)
    assert event.fields == {"round": 1, "stage": 0, "node": swarm.accounts[1], "reward": -250_000}
    with pytest.raises(Refused, match="RewardAlreadySubmitted"):
        swarm.send(1, "submitReward", 1, 0, seed(swarm, 1), 1)


def test_rewards_of_the_current_and_the_previous_round_are_taken(swarm: Swarm) -> None:
    """Stages that did not open yet, and rounds further away, are refused."""
    swarm.counted(1)
    with pytest.raises(Refused, match="WrongStage"):
        swarm.send(1, "submitReward", 1, 1, seed(swarm, 1), 1)
    with pytest.raises(Refused, match="WrongRound"):
        swarm.send(1, "submitReward", 2, 0, seed(swarm, 2), 1)
    swarm.next_round()
    swarm.send(1, "submitReward", 1, 1, seed(swarm, 1), 1)
    swarm.send(1, "submitReward", 2, 0, seed(swarm, 2), 1)
    swarm.next_round()
    with pytest.raises(Refused, match="WrongRound"):
        swarm.send(1, "submitReward", 1, 0, seed(swarm, 1), 1)


def test_strangers_submit_no_rewards(swarm: Swarm) -> None:
    """Rewards are those of nodes that count."""
    with pytest.raises(Refused, match="NotRegistered"):
        swarm.send(8, "submitReward", 0, 0, seed(swarm, 0), 1)


def test_what_was_signed_for_another_seed_is_refused(voting_open: Swarm, swarm: Swarm) -> None:
    """A transaction that a reorg carried into a round of the same number and another seed does nothing there."""
    with pytest.raises(Refused, match="SeedChanged"):
        voting_open.send(1, "submitWinners", 1, b"x" * 32, named(voting_open, 2))
    with pytest.raises(Refused, match="SeedChanged"):
        voting_open.send(1, "submitReward", 1, 0, b"x" * 32, 1)
    swarm.counted(1)
    swarm.next_round()
    with pytest.raises(Refused, match="SeedChanged"):
        swarm.send(1, "commitVote", 1, b"x" * 32, b"c" * 32)


def test_a_vote_of_a_revoked_node_is_not_revealed(voting: Swarm) -> None:
    """Whether a delegation holds is asked when the vote counts, and not only when it is committed."""
    winners = named(voting, 2)
    for voter in (1, 3):
        voting.send(voter, "commitVote", 1, seed(voting), sealed(voting, voter, winners))
    voting.submit(revocations_call([voting.revocation(1)]))
    voting.next_stage()
    with pytest.raises(Refused, match="DelegationOver"):
        voting.send(1, "revealVote", 1, winners, SALT)
    voting.send(3, "revealVote", 1, winners, SALT)


def test_a_winner_that_is_revoked_meanwhile_does_not_sink_votes(voting: Swarm) -> None:
    """Nobody spoils others' votes by being among their winners."""
    winners = named(voting, 2, 3)
    voting.send(1, "commitVote", 1, seed(voting), sealed(voting, 1, winners))
    voting.submit(revocations_call([voting.revocation(2)]))
    voting.next_stage()
    assert votes_in(voting.send(1, "revealVote", 1, winners, SALT)) == {voting.accounts[1]: tuple(winners)}


def test_rewards_are_bounded(swarm: Swarm) -> None:
    """A million either way, in millionths."""
    swarm.counted(1)
    for reward in (10**12 + 1, -(10**12) - 1, 2**255 - 1):
        with pytest.raises(Refused, match="RewardOutOfBounds"):
            swarm.send(1, "submitReward", 1, 0, seed(swarm), reward)
    swarm.send(1, "submitReward", 1, 0, seed(swarm), -(10**12))
