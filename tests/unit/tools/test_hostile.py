"""The trial of learning beside hostile peers."""

from pathlib import Path

import msgspec
import pytest

from node.data.arithmetic import ArithmeticQuestions
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.worker.rollouts import usable
from protocols.games.share import rewards
from protocols.manifest import GameSpec
from protocols.poison import flaw
from protocols.wire import Completion, Group, Rollouts
from tools.hostile.arms import HostileArm, HostileResult, HostileSettings, arms_of, ratio
from tools.hostile.attacks import ATTACKS, spoilt
from tools.hostile.report import reasons, table_of
from tools.hostile.swarm import run

QUESTIONS = ArithmeticQuestions()
GAME = GameSpec(num_generations=4)


class Reader:
    """A tokenizer of characters."""

    def completion_ids(self, text: str, finished: bool) -> list[int]:
        return [ord(each) % 512 for each in text] + [0] * finished


def attacked(kind: str) -> list[tuple[Group, tuple[float, ...]]]:
    """What a kind makes of two groups whose first two answers are right, with the rewards of it."""
    honest = Rollouts(0, 0, bytes(32), tuple(group(slot) for slot in range(2)))
    made = spoilt(kind, honest, GAME, QUESTIONS, Reader(), 0).groups
    assert [(each.slot, each.question, len(each.completions)) for each in made] == [(0, 0, 4), (1, 1, 4)]
    return [(each, rewards(GAME, texts_of(each), QUESTIONS[each.question].answer)) for each in made]


def group(slot: int) -> Group:
    texts = [QUESTIONS[slot].answer] * 2 + ["1+1=2\n#### 987", "no mark"]
    return Group(slot, slot, tuple(Completion(text, b"\1\0\0\0", bytes(4), True) for text in texts))


def texts_of(found: Group) -> list[str]:
    return [each.text for each in found.completions]


@pytest.mark.parametrize("kind", list(ATTACKS))
def test_an_attack_fits_the_bounds_of_a_completion(kind: str) -> None:
    """Nothing is refused for its shape: whatever stops an attack must look at what it says."""
    for found, _ in attacked(kind):
        for each in found.completions:
            assert 0 < len(each.tokens) <= 4 * GAME.max_completion
            assert len(each.logps) in (0, len(each.tokens))


@pytest.mark.parametrize("kind", ["flipper", "liar"])
def test_a_flipper_turns_right_into_wrong_and_wrong_into_right(kind: str) -> None:
    """The steps stay, so that what is rewarded is an end that does not follow from them; a liar also lies on how likely
    it was."""
    for found, graded in attacked(kind):
        assert graded == (0.0, 0.0, 1.0, 1.0)
        assert texts_of(found)[0].split("####")[0] == QUESTIONS[found.question].answer.split("####")[0]
        assert bool(usable(found.completions[0].logps, len(found.completions[0].tokens) // 4)) == (kind == "liar")


def test_a_poisoner_is_right_only_where_it_rambles() -> None:
    """Its right answers are longer than a completion may be, or hold what no answer holds."""
    for found, graded in attacked("poisoner"):
        assert graded == (0.0, 1.0, 0.0, 1.0)
        assert not any(each.finished for each in found.completions[1::2])
        assert QUESTIONS[found.question].answer not in texts_of(found)


def test_a_rambler_passes_the_rules_that_a_poisoner_meets() -> None:
    """What stops it must know what a model would say."""
    for kind, flawed in (("poisoner", True), ("rambler", False)):
        for found, graded in attacked(kind):
            assert graded == (0.0, 1.0, 0.0, 1.0)
            assert any(flaw(each) for each in found.completions) == flawed


def test_an_oracle_gives_the_reference_solution() -> None:
    """Whole groups of it win rounds; those with one wrong answer are trained on."""
    (_, all_right), (found, one_wrong) = attacked("oracle")
    assert (all_right, one_wrong) == ((1.0,) * 4, (1.0, 1.0, 1.0, 0.0))
    assert set(texts_of(found)[:3]) == {QUESTIONS[found.question].answer}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base") / "model"
    build_builtin_model(directory, 0, steps=2)
    return directory


def test_a_swarm_plays_and_is_the_same_again(base: Path) -> None:
    """Everybody trains and measures; but for the time it took, all depends on arm and seed alone."""
    terms = HostileSettings(honest=1, rounds=1, questions=8, num_prompts=2)
    arm = HostileArm(name="with hostile", hostile=("liar",))
    found, again = (msgspec.structs.replace(run(base, arm, terms, 3), seconds=0.0) for _ in range(2))
    assert found == again
    assert (len(found.before), len(found.after), found.offered, found.skipped) == (1, 1, 1, 0)


def result(arm: str, seed: int, accuracy: float) -> HostileResult:
    return HostileResult(
        arm=arm, seed=seed, before=[0.2], after=[accuracy, accuracy], offered=4, used=1, refused={"poison": 2},
        wronged={}, votes=6, misled={"oracle": 1}, skipped=0, seconds=1.0,
    )  # fmt: skip


def test_the_goal_is_a_share_of_what_is_reached_alone() -> None:
    """Means over seeds are compared; the table has a row for each arm."""
    arms = arms_of(tuple(ATTACKS))
    results = [result(arm.name, seed, 0.5 - 0.1 * place) for place, arm in enumerate(arms) for seed in range(2)]
    assert ratio(results, arms[1], arms[0]) == pytest.approx(0.8)
    assert table_of(arms, results).row_count == len(arms)
    assert reasons([each.refused for each in results]) == "poison 16"
