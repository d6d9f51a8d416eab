"""What a node thinks of its peers."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.machine import inputs as i
from node.machine import peer_score as standing
from node.machine.peer_score import LEAST, MILD_FLOOR, MOST, SHUNNED_AT, blamed, credited, decayed
from node.machine.state import State, initial
from node.machine.step import step
from protocols.identifiers import body_digest
from protocols.manifest import Manifest, StageSpec
from protocols.reasons import BODY_REASONS

ME, ADA = f"0x{1:040x}", f"0x{2:040x}"
EVENTS = st.sampled_from(["credit", "round", *BODY_REASONS])
SCORES = st.floats(LEAST, MOST)


def after(score: float, event: str) -> float:
    if event == "credit":
        return credited(score)
    return decayed(score, 1) if event == "round" else blamed(score, BODY_REASONS[event].blame)


@given(SCORES, st.lists(EVENTS, max_size=60))
def test_a_score_is_bounded_whatever_happens(score: float, events: list[str]) -> None:
    """No record is so good or so bad that it could not be lost or mended."""
    for event in events:
        score = after(score, event)
        assert LEAST <= score <= MOST


@given(SCORES, st.integers(0, 500), st.integers(0, 500))
def test_scores_fade_towards_zero(score: float, rounds: int, more: int) -> None:
    """Time never changes a score's sign nor takes it away from zero, and rounds may pass one by one or together."""
    faded = decayed(score, rounds)

    assert 0 <= faded / score <= 1 if score else faded == 0
    assert decayed(faded, more) == pytest.approx(decayed(score, rounds + more), abs=1e-9)


@given(st.lists(st.sampled_from(["unavailable", "certain", "nothing", "round"]), max_size=300))
def test_mild_faults_alone_never_shun(events: list[str]) -> None:
    """A node behind a bad line is never left aside, however often its bodies can't be had."""
    score = 0.0
    for event in events:
        score = after(score, event) if event != "nothing" else score
        assert score >= MILD_FLOOR > SHUNNED_AT


def test_who_is_believed_in_five_of_six_bodies_is_never_shunned() -> None:
    """A model that is wrong about an honest peer once in a hundred rounds is wrong four times in a row never."""
    score, lowest = 0.0, 0.0
    for number in range(600):
        score = credited(decayed(score, 1))
        score = blamed(score, "rare") if number % 6 == 0 else score
        lowest = min(lowest, score)
    assert SHUNNED_AT < lowest < 0


@pytest.mark.parametrize(("score", "rounds"), [(0.0, 4), (MOST, 5)])
def test_who_is_never_believed_is_soon_shunned(score: float, rounds: int) -> None:
    """Also who earned all the credit that there is; and again, whenever he is given another chance."""
    for number in range(1, rounds + 1):
        score = blamed(credited(decayed(score, 1)), "rare")
        assert (score <= SHUNNED_AT) == (number == rounds)
    shunned = next(number for number in range(1, 9) if decayed(score, number) > SHUNNED_AT)
    again = blamed(credited(decayed(score, shunned)), "rare")
    assert shunned >= 2
    assert again <= SHUNNED_AT


@given(SCORES, st.sampled_from([reason for reason, each in BODY_REASONS.items() if each.blame in ("plain", "grave")]))
def test_what_the_honest_never_do_takes_all_credit_at_once(score: float, reason: str) -> None:
    """A long good record does not pay for one lie."""
    assert blamed(score, BODY_REASONS[reason].blame) <= -20


@given(st.lists(st.sampled_from(["poison", "assignment", "equivocation"]), min_size=1, max_size=4))
def test_the_order_of_faults_within_a_round_is_all_one(events: list[str]) -> None:
    """Where no credit is lost and no bound is met, only what happened counts, not in which order."""
    outcomes = set()
    for order in permutations(events):
        score = 0.0
        for event in order:
            score = after(score, event)
        outcomes.add(score)
    assert len(outcomes) == 1 or min(outcomes) == LEAST


def test_an_equivocation_shuns_for_ten_rounds_and_two_plain_faults_for_two() -> None:
    """The worst that can be proven costs the most; a shunned peer gets another chance."""
    for start, rounds in ((blamed(5.0, "grave"), 10), (blamed(blamed(0.0, "plain"), "plain"), 2)):
        assert start <= SHUNNED_AT
        assert decayed(start, rounds) <= SHUNNED_AT < decayed(start, rounds + 1)


def playing(peers: int = 3, stages: int = 1) -> State:
    specs = tuple(StageSpec(name="play", seconds=60) for _ in range(stages))
    state = initial(ME, Manifest(name="standing", stages=specs))
    state = replace(state, peers={f"0x{each:040x}": 0 for each in range(1, peers + 1)})
    return fed(state, i.NodeStarted(), i.ChainRestored(0.0), opened(1))


def opened(number: int) -> i.StageOpened:
    return i.StageOpened(number, 0, body_digest(str(number).encode()), 60 * number + 60, 60 * number, 1)


def fed(state: State, *inputs: i.AnyInput, at: float = 0.0) -> State:
    for happened in inputs:
        state, _ = step(state, i.Stamped(at, happened))
    return state


def test_credit_comes_after_the_check() -> None:
    """An announcement is worth nothing, a body that passed is, and only once."""
    body = body_digest(b"body")
    announced = fed(playing(), i.RolloutsAnnounced(ADA, 1, 0, body, 1000, False))
    assert announced.standing == {}

    arrived = i.RolloutsArrived(ADA, 1, 0, body, 16, 4.0)
    assert fed(announced, arrived, arrived).standing == {ADA: 1.0}


def test_who_is_gone_and_what_has_faded_is_forgotten() -> None:
    """There are no more scores than peers, and none of nothing."""
    state = replace(playing(), standing={ADA: 0.051, f"0x{3:040x}": -50.0, f"0x{9:040x}": -50.0})

    assert standing.forgive(state, 1).standing == {f"0x{3:040x}": pytest.approx(-47.5)}


def test_nobody_judges_himself_or_a_stranger_to_the_swarm() -> None:
    """This node and those that are not registered have no score."""
    state = playing()
    for peer in (ME, f"0x{9:040x}"):
        assert standing.hold_against(state, peer, "equivocation") == state


def test_a_body_in_doubt_counts_but_earns_no_credit() -> None:
    """It passed the checks, so it is trained on; its sender has no more credit than before."""
    body = body_digest(b"body")
    state = fed(
        playing(),
        i.RolloutsAnnounced(ADA, 1, 0, body, 1000, False),
        i.RolloutsArrived(ADA, 1, 0, body, 16, 4.0, doubt="certain"),
    )

    assert state.pools[1][ADA].state == "arrived"
    assert state.standing == {ADA: -1.0}
