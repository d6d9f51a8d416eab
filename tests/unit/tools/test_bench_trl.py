"""The comparison with TRL, as far as it decides anything."""

import msgspec
import pytest

from node.trainer.engines.builtin.builtin_model import BuiltinShape
from protocols.games.share import has_advantage
from tools.bench_trl.cases import CASES, BenchJob, Turn, alternating, tiny
from tools.bench_trl.generation import sampling_flops
from tools.bench_trl.match import Match, Side, side_of
from tools.bench_trl.models import game_of, questions_of
from tools.bench_trl.report import verdicts


def side(seconds: float, peak: int = 100, accuracy: float | None = None) -> Side:
    return Side(
        seconds=seconds,
        generating=0.0,
        training=seconds,
        cpu=seconds,
        peak=peak,
        rewards=[0.5],
        tokens=1,
        accuracy=accuracy,
    )


def test_injected_rewards_give_each_group_an_advantage() -> None:
    """Whatever a random model says, no group falls out of the update."""
    assert all(has_advantage(alternating(count)) for count in range(2, 20))


@pytest.mark.parametrize("name", CASES)
def test_both_sides_get_the_same_questions(name: str) -> None:
    """Enough for every update, the same for the same seed, others for another; letters are tokens."""
    case = tiny(CASES[name])
    questions = questions_of(case, 0)
    assert len(questions) == case.groups * case.updates
    assert questions == questions_of(case, 0)
    assert questions != questions_of(case, 1)
    assert game_of(case).num_generations == case.num_generations
    if case.shape:
        assert {len(text) for text, _ in questions} == {case.prompt}


def test_the_first_update_is_not_counted() -> None:
    """Medians are of those after it: memory is allocated in the first."""
    turns = [Turn(seconds=s, generating=s / 4, cpu=s, reward=0.0, tokens=2) for s in (90.0, 1.0, 3.0, 2.0)]
    found = side_of(turns, 7, None)
    assert (found.seconds, found.generating, found.training, found.tokens) == (2.0, 0.5, 1.5, 8)


def test_a_verdict_is_a_goal_met_or_missed() -> None:
    """Speed by the mean of ratios, memory by the highest peaks, accuracy by the means; better is never missed."""
    case = CASES["builtin"]

    def match(ours: Side, trl: Side) -> Match:
        return Match(case="builtin", seed=0, threads=1, before=0.2, trl=trl, ours=ours)

    good = [match(side(1.0, 90, 0.6), side(3.5, 100, 0.5))]
    assert [holds for _, holds in verdicts(case, good)] == [True, True, True]
    bad = [match(side(1.0, 110, 0.4), side(2.5, 100, 0.5))]
    assert [holds for _, holds in verdicts(case, bad)] == [False, False, False]


def test_operations_of_sampling_are_counted_once_per_token() -> None:
    """Worked out by hand for one layer: a prompt of 2 tokens, completions of 1 and 3."""
    shape = BuiltinShape(
        vocab_size=5, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    weights, head = 4 * (2 * 4 + 2 * 2 + 3 * 6), 5 * 4
    prompt = 2 * weights * 2 + 2 * head + 16 * (1 + 2)
    steps = 2 * 2 * (weights + head) + 16 * (3 + 4)
    assert sampling_flops(shape, [2], [1, 3]) == prompt + steps


def test_a_job_fits_in_a_line() -> None:
    """What a contestant is told survives the way there."""
    job = BenchJob(case=CASES["smol"], model="m", questions=(("a\nb", ""),), threads=1, seed=0, out="")
    line = msgspec.json.encode(job)
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=BenchJob) == job
