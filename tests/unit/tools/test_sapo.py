"""The trial of sharing."""

import random
from pathlib import Path

import msgspec
import pytest

from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.engines.sampler import Sample
from tools.sapo.arms import SapoArm, SapoSettings, arms_of, chosen
from tools.sapo.report import draw, table_of
from tools.sapo.swarm import run
from tools.training import Rollout
from tools.trials import spread


def rollout(name: str, *rewards: float) -> Rollout:
    return Rollout(name, [Sample([1], [-0.1], "", True) for _ in rewards], rewards)


DEAD = [rollout(f"dead{number}", 0.0, 0.0) for number in range(6)]
LIVE = [rollout(f"live{number}", 0.0, 1.0) for number in range(6)]


def test_arms_train_on_equally_many_groups() -> None:
    """Eight in every arm; the control chooses from as many as a peer of 4/4 sees in the whole swarm."""
    arms = arms_of(8)
    assert {arm.local_groups + arm.external_groups for arm in arms} == {8}
    assert next(arm for arm in arms if arm.name == "8/0 filtered").num_prompts == 8 * 4
    assert all(arm.num_prompts == arm.local_groups for arm in arms if arm.name != "8/0 filtered")


def test_external_groups_have_an_advantage() -> None:
    """Whatever the pool holds, only what teaches is drawn, each at most once."""
    own, external = chosen(
        SapoArm(name="", num_prompts=2, local_groups=2, external_groups=4), DEAD[:2], DEAD + LIVE, random.Random(0)
    )
    assert own == DEAD[:2]
    assert len({each.question for each in external}) == 4
    assert all(each in LIVE for each in external)
    _, few = chosen(
        SapoArm(name="", num_prompts=0, local_groups=0, external_groups=4), [], DEAD + LIVE[:1], random.Random(0)
    )
    assert few == LIVE[:1]


def test_the_control_filters_its_own() -> None:
    """Of more own groups than it trains on, only those with an advantage are drawn."""
    own, external = chosen(
        SapoArm(name="", num_prompts=12, local_groups=4, external_groups=0), DEAD + LIVE, [], random.Random(0)
    )
    assert external == []
    assert len(own) == 4
    assert all(each in LIVE for each in own)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base") / "model"
    build_builtin_model(directory, 0, steps=2)
    return directory


def test_a_run_is_the_same_again(base: Path, tmp_path: Path) -> None:
    """Everything but the time it took depends on arm and seed alone; table and picture take what it returns."""
    terms = SapoSettings(peers=2, rounds=2, questions=8, every=1)
    arm = SapoArm(name="1/1", num_prompts=2, local_groups=1, external_groups=1)
    found, again = (run(base, arm, terms, 3) for _ in range(2))
    assert (found.rewards, found.accuracies, found.tokens) == (again.rewards, again.accuracies, again.tokens)
    assert [number for number, _ in found.accuracies] == [0, 1, 2]
    assert len(found.rewards) == 2
    arms = arms_of(2)
    results = [msgspec.structs.replace(found, arm=each.name) for each in arms]
    assert table_of(arms, results).row_count == len(arms)
    draw(arms, results, tmp_path / "sapo.png")
    assert (tmp_path / "sapo.png").stat().st_size > 1000


def test_spread_is_mean_and_deviation() -> None:
    """One value has no deviation."""
    assert spread([1.0, 3.0], 1) == "2.0 ± 1.4"
    assert spread([1.0], 2) == "1.00"
