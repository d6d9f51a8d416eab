"""Tallies and the leaderboard from events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.tally import ONE_VOTE, Registered, Rewarded, Voted, leaderboard, leaders, read_votes, tally

NODES = tuple(f"0x{number:040x}" for number in range(1, 41))
RING, OTHERS = NODES[:20], NODES[20:]


def ring_votes() -> list[Voted]:
    """Twenty keys that vote for each other, five winners each."""
    return [
        Voted(1, node, tuple(sorted(RING[(place + step) % 20] for step in range(1, 6))))
        for place, node in enumerate(RING)
    ]


def owned(*, by_one: bool) -> dict[str, str]:
    """Every node its own owner; the ring, if asked for, one owner's."""
    return {node: RING[0] if by_one and node in RING else node for node in NODES}


def test_a_ring_of_twenty_keys_of_one_owner_gains_nothing() -> None:
    """Votes among an owner's nodes are ignored, however many there are."""
    assert tally(ring_votes(), owned(by_one=True)) == {}


def test_an_owners_votes_weigh_one_together() -> None:
    """Twenty keys that name the same outsider give it what one key gives."""
    votes = [Voted(1, node, (OTHERS[0],)) for node in RING]
    single = [Voted(1, OTHERS[1], (OTHERS[2],))]
    assert tally(votes + single, owned(by_one=True)) == {OTHERS[0]: ONE_VOTE, OTHERS[2]: ONE_VOTE}


def test_the_cap_can_be_set() -> None:
    """With two votes per owner four nodes weigh half each, and one node never more than one."""
    owners = owned(by_one=True)
    assert tally([Voted(1, node, (OTHERS[0],)) for node in RING[:4]], owners, 2) == {OTHERS[0]: 2 * ONE_VOTE}
    assert tally([Voted(1, RING[0], (OTHERS[0],))], owners, 2) == {OTHERS[0]: ONE_VOTE}


def test_a_ring_of_twenty_owners_remains() -> None:
    """Known limit, stated in docs/votes.md: keys under owners of their own are told from honest peers by nothing."""
    assert tally(ring_votes(), owned(by_one=False)) == dict.fromkeys(RING, 5 * ONE_VOTE)


votes_of_a_round = st.lists(
    st.builds(
        Voted,
        round=st.just(1),
        voter=st.sampled_from(NODES),
        winners=st.sets(st.sampled_from(NODES), min_size=1, max_size=5).map(lambda few: tuple(sorted(few))),
    ),
    unique_by=lambda vote: vote.voter,
)


@given(votes_of_a_round, st.lists(st.sampled_from(NODES[:6]), min_size=40, max_size=40), st.randoms())
def test_no_owner_weighs_more_than_its_cap(votes: list[Voted], owner_of: list[str], dice: object) -> None:
    """Whoever owns what: no winner gets more than one vote from an owner, none from its own, in any order of events."""
    owners = dict(zip(NODES, owner_of, strict=True))
    weights = tally(votes, owners)
    assert weights == tally(votes[::-1], owners) == tally(votes + votes, owners)
    for winner, weight in weights.items():
        foreign = {owners[vote.voter] for vote in votes if winner in vote.winners} - {owners[winner]}
        assert 0 < weight <= ONE_VOTE * len(foreign)


def test_the_leaderboard_adds_rounds_and_shows_rewards() -> None:
    """Votes decide; what nodes say of themselves is shown, once each."""
    one, two, three = NODES[:3]
    registered = [Registered(node, node) for node in (one, two, three)]
    votes = [Voted(1, one, (three,)), Voted(1, two, (three,)), Voted(2, one, (two, three)), Voted(2, three, (two,))]
    rewards = [Rewarded(1, 0, one, 900_000), Rewarded(1, 0, one, 900_000), Rewarded(2, 0, one, -100_000)]
    board = leaderboard(registered, votes, rewards)
    assert [(place.node, place.votes, place.led, place.reward) for place in board] == [
        (three, 3 * ONE_VOTE, 1, 0),
        (two, 2 * ONE_VOTE, 1, 0),
        (one, 0, 0, 800_000),
    ]


def test_a_round_without_votes_has_no_leader() -> None:
    """Nobody wins by default, and those with equal votes lead together."""
    assert leaders({}) == ()
    assert leaders({NODES[1]: 2, NODES[0]: 2, NODES[2]: 1}) == (NODES[0], NODES[1])


def test_packed_votes_are_read_as_they_were_written() -> None:
    """The event's bytes: voter, count, places."""
    packed = bytes.fromhex(NODES[0][2:]) + b"\x02\x00\x00\x00\x01" + bytes.fromhex(NODES[1][2:]) + b"\x01\x00\x01"
    expected = (Voted(3, NODES[0], (NODES[5], NODES[6])), Voted(3, NODES[1], (NODES[6],)))
    assert read_votes(3, NODES[5:7], packed) == expected


@pytest.mark.parametrize("packed", [b"\x01" * 5, bytes(20) + b"\x02\x00\x00", bytes(20) + b"\x01\x00\x09"])
def test_bytes_that_are_no_votes_are_refused(packed: bytes) -> None:
    """Cut short, or naming a place that is not there."""
    with pytest.raises(ValueError, match="no votes"):
        read_votes(3, NODES[5:7], packed)
