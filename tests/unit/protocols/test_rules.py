"""Assignment, schedule, grading, ranking, votes, manifest."""

from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.assignment import assigned_question, assignment
from protocols.grading import final_number, last_number
from protocols.manifest import Manifest, manifest_digest
from protocols.manifest_rules import parse_manifest
from protocols.ranking import Score, round_score, winners
from protocols.schedule import (
    MAX_RELAYERS,
    RELAY_END,
    RELAY_START,
    RELAY_TURNS,
    commit_step,
    relay_turns,
    reveal_step,
    step_number,
    turn_delay,
    turn_order,
)
from protocols.voting import vote_commitment, vote_salt

PEERS = tuple(f"0x{n:040x}" for n in range(1, 9))


@given(st.binary(min_size=32, max_size=32), st.sampled_from(PEERS), st.integers(1, 10_000))
def test_an_assignment_is_the_same_for_everybody_and_inside_the_set(seed: bytes, peer: str, size: int) -> None:
    """The questions follow from seed, peer, stage and slot alone, and exist."""
    mine = assignment(bytes(32), seed, peer, 0, 16, size)

    assert mine == tuple(assigned_question(bytes(32), seed, peer, 0, slot, size) for slot in range(16))
    assert all(0 <= question < size for question in mine)


def test_two_peers_get_different_questions() -> None:
    """Questions are spread: two peers of one round do not share their list."""
    first, second = (assignment(bytes(32), bytes(32), peer, 0, 16, 8192) for peer in PEERS[:2])

    assert first != second


def test_votes_are_cast_after_the_round_and_revealed_a_stage_later() -> None:
    """With two stages a round, round 4 is committed to in step 10 and revealed in step 11."""
    assert step_number(5, 0, 2) == commit_step(4, 2) == 10
    assert reveal_step(4, 2) == 11


def test_turns_are_the_same_for_everybody_and_outsiders_come_last() -> None:
    """Each peer has one turn, at a multiple of the turn's length; a stranger waits for all."""
    order = turn_order(reversed(PEERS), b"s" * 32, 3, 0)

    assert order == turn_order(PEERS, b"s" * 32, 3, 0)
    assert sorted(turn_delay(peer, order, 3.0) for peer in PEERS) == [3.0 * place for place in range(8)]
    assert turn_delay("0x" + "f" * 40, order, 3.0) == 24.0


def test_nobody_waits_for_more_than_sixteen_to_advance() -> None:
    """A thousand keys that take no turn delay a stage by no more than sixteen turns."""
    order = tuple(f"0x{number:040x}" for number in range(1000))

    assert max(turn_delay(peer, order, 3.0) for peer in order) == turn_delay("0x" + "f" * 40, order, 3.0) == 48.0


@given(st.sets(st.integers(1, 40), max_size=30), st.binary(min_size=32, max_size=32), st.integers(0, 99), st.randoms())
def test_relayers_share_a_stage(numbers: set[int], seed: bytes, round_number: int, shuffle: Random) -> None:
    """Whoever asks, in whatever order it knows the relayers, finds the same turns: evenly spread over the window, no
    two at once, at least three where there is anybody; nobody has two more than another, and strangers have none."""
    relayers = [f"0x{number:040x}" for number in sorted(numbers)]
    mixed = shuffle.sample(relayers, len(relayers))
    turns = {peer: relay_turns(peer, relayers, seed, round_number, 0) for peer in relayers}
    drawn = {peer: each for peer, each in turns.items() if each}
    everybody = sorted(share for each in turns.values() for share in each)

    assert all(relay_turns(peer, mixed + mixed, seed, round_number, 0) == each for peer, each in turns.items())
    assert relay_turns("0x" + "f" * 40, relayers, seed, round_number, 0) == ()
    assert len(drawn) == min(MAX_RELAYERS, len(relayers))
    assert len(everybody) == (max(RELAY_TURNS, len(drawn)) if drawn else 0)
    assert all(RELAY_START <= share < RELAY_END for share in everybody)
    assert all(list(each) == sorted(each) for each in turns.values())
    gaps = {round(after - before, 6) for before, after in pairwise(everybody)}
    assert gaps <= {round((RELAY_END - RELAY_START) / len(everybody or (1,)), 6)}
    assert max(map(len, drawn.values()), default=0) - min(map(len, drawn.values()), default=0) <= 1


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("2+2=4\n#### 4", 1.0),
        ("#### 4.0", 1.0),
        ("#### 1,004", 0.0),
        ("#### 4 apples", 0.0),
        ("4", 0.0),
        ("#### ٤", 0.0),
        ("#### " + "9" * 5000, 0.0),
        ("", 0.0),
    ],
)
def test_the_final_number_decides(completion: str, reward: float) -> None:
    """Only "#### N" at the end counts, whatever the spelling of N, in ASCII digits."""
    assert reward == final_number(completion, "2+2=4\n#### 4")


def test_the_last_number_of_the_first_line_decides() -> None:
    """What a model writes after its first line does not count."""
    assert last_number(" 3 + 5 = 8.\nQuestion: 9", "8.0") == 1.0
    assert last_number(" 3 + 5 = 9\n8", "8") == 0.0


def test_winners_are_ranked_by_mean_and_never_include_oneself() -> None:
    """A sum does not win, too few groups do not win, I do not win."""
    scores = [
        Score(PEERS[0], 16, 8.0),
        Score(PEERS[1], 2, 1.9),
        Score(PEERS[2], 1, 1.0),
        Score(PEERS[3], 16, 0.0),
        Score(PEERS[4], 16, 12.0),
    ]

    assert (PEERS[1], PEERS[4]) == winners(scores, PEERS[7], 2, 2)
    assert (PEERS[0], PEERS[1]) == winners(scores, PEERS[4], 2, 2)


def test_a_commitment_binds_round_seed_voter_winners_and_salt() -> None:
    """Changing any part changes the commitment."""
    salt = vote_salt(b"k" * 32, bytes(32), bytes(32))
    base = (3, bytes(32), PEERS[0], PEERS[1:3], salt)
    others = [
        (4, *base[1:]),
        (3, b"x" * 32, *base[2:]),
        (*base[:2], PEERS[5], *base[3:]),
        (*base[:3], PEERS[1:2], salt),
        (*base[:4], bytes(32)),
    ]

    assert len({vote_commitment(*case) for case in [base, *others]}) == 6


def test_the_manifest_digest_covers_every_field() -> None:
    """Two manifests that differ anywhere have different digests."""
    plain = Manifest(name="a")

    assert manifest_digest(plain) == manifest_digest(Manifest(name="a"))
    assert manifest_digest(plain) != manifest_digest(msgspec.structs.replace(plain, evaluate_every=6))


@pytest.mark.parametrize("text", [b'name="a"\nunknown=1', b'name="a"\n[game]\nprompt="no place"', b"name=1"])
def test_a_wrong_manifest_is_refused(text: bytes) -> None:
    """Unknown keys, wrong types and senseless values are errors."""
    with pytest.raises(msgspec.ValidationError):
        parse_manifest(text)


def test_a_round_of_one_stage_is_worth_what_it_measured() -> None:
    """With several stages the mean is that of the stages' means."""
    assert round_score(PEERS[0], [(3, 0.7)]) == Score(PEERS[0], 3, 0.7)
    assert round_score(PEERS[0], [(2, 2.0), (8, 0.0)]).mean == pytest.approx(0.5)
    assert round_score(PEERS[0], [(0, 0.0), (0, 0.0)]) == Score(PEERS[0], 0, 0.0)
