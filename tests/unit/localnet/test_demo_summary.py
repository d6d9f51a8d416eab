import msgspec
import pytest

from node.localnet.demo_compare import compared
from node.localnet.demo_plan import DemoOptions, demo_plan
from node.localnet.demo_summary import (
    DemoSummary,
    answer_remark,
    finished,
    remarks,
    skip_lines,
    stage_table,
    summed_up,
    table,
    vote_lines,
)
from node.localnet.demo_watch import seen
from node.localnet.learning_curves import reward_curve
from node.machine.status import RewardPoint, Totals
from node.trainer.evaluation import Evaluation, StageShare
from tests.support.demo_snapshots import ADDRESSES, sighting, snapshot, status, vote

PLAN = demo_plan(DemoOptions(peers=2, rounds=4))
OVER = PLAN.last_round + 1


def summary(after: float = 0.6) -> DemoSummary:
    first = sighting(1, status(1, round_number=OVER, curve=((0, 0.2), (OVER, after))))
    totals = Totals(own_groups=10, external_groups=0, stages_skipped=4)
    second = sighting(2, status(2, round_number=OVER, curve=((0, 0.3),), totals=totals), ("2 s of round 3 were left",))
    seen_last = snapshot(first, second, votes=(vote(2, 1, 2), vote(3, 2, 1)))
    return summed_up(PLAN, seen_last, seconds=12.0, contract="0xc0")


def test_gain_and_share_are_those_of_all_peers() -> None:
    """Accuracy is the mean over peers, also those that could not train; the share counts groups trained on."""
    found = summary()
    assert (found.before, found.after) == pytest.approx((0.25, 0.45))
    assert found.gain == pytest.approx(20.0)
    assert found.external_share == pytest.approx(20 / 60)


def test_votes_are_those_on_the_chain() -> None:
    """Each peer is credited with the votes that the contract has from it, shown with their transactions."""
    found = summary()
    assert [peer.votes for peer in found.peers] == [1, 1]
    assert vote_lines(found, 1) == ["round 3: quick brown fox2 for quick brown fox1  0x" + f"{3:064x}"]
    assert vote_lines(found, 0) == []


def test_skips_are_told_with_their_reason() -> None:
    """A reason stands beside the name of the peer that skipped."""
    assert skip_lines(summary()) == ["quick brown fox2: 2 s of round 3 were left"]


def test_the_table_has_a_line_for_each_peer_and_the_mean() -> None:
    """Every line has as many cells as the head."""
    lines = table(summary())
    assert len(lines) == 1 + 2 + 1
    assert {len(cells) for cells in lines} == {len(lines[0])}
    assert lines[-1][:5] == ["", "mean", "25.0 %", "45.0 %", "+20.0"]


def test_everything_is_in_the_json() -> None:
    """The summary survives JSON, and its remarks name gain, share and contract."""
    found = summary()
    assert msgspec.json.decode(msgspec.json.encode(found), type=DemoSummary) == found
    text = " ".join(remarks(found))
    assert "+20.0 points" in text
    assert "33.3 %" in text
    assert "0xc0" in text


def test_a_reason_is_kept_once() -> None:
    """A sighting gathers reasons, not repetitions, and outlives a node that does not answer."""
    before = sighting(1, None)
    told = status(1, round_number=3, curve=(), last_skip="too slow")
    after = seen(seen(seen(before, told), told), None)
    assert after.skips == ("too slow",)
    assert after.status == told


@pytest.mark.parametrize(
    ("rounds", "measured", "over"),
    [
        ((OVER - 1, OVER - 1), (True, True), False),
        ((OVER, OVER), (True, False), False),
        ((OVER, OVER), (True, True), True),
        ((OVER + 2, OVER), (True, False), True),
    ],
)
def test_a_demo_ends_when_all_are_measured_or_never_will_be(
    rounds: tuple[int, int], measured: tuple[bool, bool], over: bool
) -> None:
    """It waits for the last evaluation of everybody, but two rounds at most."""
    sightings = [
        sighting(number, status(number, round_number=at, curve=((OVER if done else 0, 0.5),)))
        for number, (at, done) in enumerate(zip(rounds, measured, strict=True), 1)
    ]
    assert finished(PLAN, snapshot(*sightings)) is over


def test_a_comparison_is_the_difference_at_the_end() -> None:
    """Points of accuracy with sharing minus those without."""
    assert compared(summary(0.8), summary(0.6)).difference == pytest.approx(10.0)


def test_addresses_of_votes_are_compared_as_the_node_writes_them() -> None:
    """Lower case everywhere: a checksummed address would never match a status."""
    assert all(address == address.lower() for address in ADDRESSES)


def evaluated(first: float, last: float) -> Evaluation:
    """What `swarm eval --stages` says of one peer's model after a debate."""
    rights = {"answer": first, "critique": None, "resolve": last}
    return Evaluation(
        model="m", data="d", questions=400, greedy=False, temperature=1.0, accuracy=first, low=0.0, high=1.0,
        seconds=1.0, stages=tuple(StageShare(name=name, reward=0.5, right=right) for name, right in rights.items()),
    )  # fmt: skip


def test_stages_are_compared_at_both_ends() -> None:
    """Rewards of the first and the last rounds are means over peers; final answers stand against first ones."""
    plan = demo_plan(DemoOptions(game="debate", peers=2, rounds=4))
    points = tuple(
        RewardPoint(number, 0.1 * number + 0.1 * stage, stage, right=0.0 if stage == 1 else 0.1 * number + 0.05 * stage)
        for number in range(2, 6)
        for stage in range(3)
    )
    nodes = [sighting(n, status(n, round_number=9, curve=((0, 0.2),), rewards=points)) for n in (1, 2)]
    found = summed_up(
        plan, snapshot(*nodes), seconds=1.0, contract="0xc0", self_played=(evaluated(0.4, 0.5), evaluated(0.5, 0.6))
    )
    answers, critique, resolve = found.stages
    assert (answers.before, answers.after) == pytest.approx((0.2, 0.5))
    assert (answers.answers, critique.answers, resolve.answers) == (True, False, True)
    assert {len(cells) for cells in stage_table(found)} == {5}
    assert "45.0 % of first answers" in answer_remark(found)
    assert "+10.0 points" in answer_remark(found)
    assert answer_remark(summary()) == ""
    assert reward_curve(points)[1] == pytest.approx([0.3, 0.4, 0.5, 0.6])
