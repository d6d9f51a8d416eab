"""What a node thinks of its peers."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.machine import inputs as i
from node.machine import peer_score
from node.machine.peer_score import (
    GRAYLIST_THRESHOLD,
    HIGH_TOLERANCE_FLOOR,
    MAX_SCORE,
    MIN_SCORE,
    decayed,
    penalised,
    raised,
)
from node.machine.state import State, initial
from node.machine.step import step
from protocols.identifiers import body_digest
from protocols.manifest import Manifest, StageSpec
from protocols.reasons import BODY_REASONS

ME, ADA = f"0x{1:040x}", f"0x{2:040x}"
EVENTS = st.sampled_from(["valid", "round", *BODY_REASONS])
SCORES = st.floats(MIN_SCORE, MAX_SCORE)


def after(score: float, event: str) -> float:
    if event == "valid":
        return raised(score)
    return decayed(score, 1) if event == "round" else penalised(score, BODY_REASONS[event].severity)


@given(SCORES, st.lists(EVENTS, max_size=60))
def test_a_score_is_bounded_whatever_happens(score: float, events: list[str]) -> None:
    """No record is so good or so bad that it could not be lost or mended."""
    for event in events:
        score = after(score, event)
        assert MIN_SCORE <= score <= MAX_SCORE


@given(SCORES, st.integers(0, 500), st.integers(0, 500))
def test_scores_decay_towards_zero(score: float, rounds: int, more: int) -> None:
    """Time never changes a score's sign nor takes it away from zero, and rounds may pass one by one or together."""
    faded = decayed(score, rounds)

    assert 0 <= faded / score <= 1 if score else faded == 0
    assert decayed(faded, more) == pytest.approx(decayed(score, rounds + more), abs=1e-9)


@given(st.lists(st.sampled_from(["unavailable", "certain", "nothing", "round"]), max_size=300))
def test_faults_of_high_tolerance_alone_never_graylist(events: list[str]) -> None:
    """A node with a bad connection is never graylisted, however often its bodies are unavailable."""
    score = 0.0
    for event in events:
        score = after(score, event) if event != "nothing" else score
        assert score >= HIGH_TOLERANCE_FLOOR > GRAYLIST_THRESHOLD


def test_a_peer_believed_in_five_of_six_bodies_is_never_graylisted() -> None:
    """A model that is wrong about an honest peer once in a hundred rounds is wrong four times in a row never."""
    score, lowest = 0.0, 0.0
    for number in range(600):
        score = raised(decayed(score, 1))
        score = penalised(score, "mid_tolerance") if number % 6 == 0 else score
        lowest = min(lowest, score)
    assert GRAYLIST_THRESHOLD < lowest < 0


@pytest.mark.parametrize(("score", "rounds"), [(0.0, 4), (MAX_SCORE, 5)])
def test_a_peer_that_is_never_believed_is_soon_graylisted(score: float, rounds: int) -> None:
    """Even from the highest score; and again, whenever it gets another chance."""
    for number in range(1, rounds + 1):
        score = penalised(raised(decayed(score, 1)), "mid_tolerance")
        assert (score <= GRAYLIST_THRESHOLD) == (number == rounds)
    rounds_out = next(number for number in range(1, 9) if decayed(score, number) > GRAYLIST_THRESHOLD)
    again = penalised(raised(decayed(score, rounds_out)), "mid_tolerance")
    assert rounds_out >= 2
    assert again <= GRAYLIST_THRESHOLD


@given(
    SCORES,
    st.sampled_from([reason for reason, each in BODY_REASONS.items() if each.severity in ("low_tolerance", "fatal")]),
)
def test_what_the_honest_never_do_takes_a_positive_score_at_once(score: float, reason: str) -> None:
    """A long good record does not pay for one lie."""
    assert penalised(score, BODY_REASONS[reason].severity) <= -20


@given(st.lists(st.sampled_from(["poison", "assignment", "equivocation"]), min_size=1, max_size=4))
def test_the_order_of_faults_within_a_round_is_all_one(events: list[str]) -> None:
    """Where no positive score is lost and no bound is met, only what happened counts, not in which order."""
    outcomes = set()
    for order in permutations(events):
        score = 0.0
        for event in order:
            score = after(score, event)
        outcomes.add(score)
    assert len(outcomes) == 1 or min(outcomes) == MIN_SCORE


def test_an_equivocation_graylists_for_ten_rounds_and_two_faults_of_low_tolerance_for_two() -> None:
    """The worst that can be proven costs the most; a graylisted peer gets another chance."""
    for start, rounds in (
        (penalised(5.0, "fatal"), 10),
        (penalised(penalised(0.0, "low_tolerance"), "low_tolerance"), 2),
    ):
        assert start <= GRAYLIST_THRESHOLD
        assert decayed(start, rounds) <= GRAYLIST_THRESHOLD < decayed(start, rounds + 1)


def playing(peers: int = 3, stages: int = 1) -> State:
    specs = tuple(StageSpec(name="play", seconds=60) for _ in range(stages))
    state = initial(ME, Manifest(name="scores", stages=specs))
    state = replace(state, peers={f"0x{each:040x}": 0 for each in range(1, peers + 1)})
    return fed(state, i.NodeStarted(), i.ChainRestored(0.0), opened(1))


def opened(number: int) -> i.StageOpened:
    return i.StageOpened(number, 0, body_digest(str(number).encode()), 60 * number + 60, 60 * number, 1)


def fed(state: State, *inputs: i.AnyInput, at: float = 0.0) -> State:
    for happened in inputs:
        state, _ = step(state, i.Stamped(at, happened))
    return state


def test_a_score_rises_after_the_check() -> None:
    """An announcement is worth nothing, a body that passed is, and only once."""
    body = body_digest(b"body")
    announced = fed(playing(), i.RolloutsAnnounced(ADA, 1, 0, body, 1000, False))
    assert announced.peer_scores == {}

    arrived = i.RolloutsArrived(ADA, 1, 0, body, 16, 4.0)
    assert fed(announced, arrived, arrived).peer_scores == {ADA: 1.0}


def test_scores_of_unregistered_peers_and_scores_near_zero_are_dropped() -> None:
    """There are no more scores than peers, and none of nothing."""
    state = replace(playing(), peer_scores={ADA: 0.051, f"0x{3:040x}": -50.0, f"0x{9:040x}": -50.0})

    assert peer_score.decay_scores(state, 1).peer_scores == {f"0x{3:040x}": pytest.approx(-47.5)}


def test_neither_this_node_nor_an_unregistered_one_has_a_score() -> None:
    """This node and those that are not registered have no score."""
    state = playing()
    for peer in (ME, f"0x{9:040x}"):
        assert peer_score.lower_score(state, peer, "equivocation") == state


def test_a_body_in_doubt_counts_but_does_not_raise_the_score() -> None:
    """It passed the checks, so it is trained on; its sender's score does not rise."""
    body = body_digest(b"body")
    state = fed(
        playing(),
        i.RolloutsAnnounced(ADA, 1, 0, body, 1000, False),
        i.RolloutsArrived(ADA, 1, 0, body, 16, 4.0, doubt="certain"),
    )

    assert state.bodies_by_step[1][ADA].state == "arrived"
    assert state.peer_scores == {ADA: -1.0}
