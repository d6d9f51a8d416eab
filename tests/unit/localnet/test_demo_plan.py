import msgspec
import pytest
from msgspec.structs import replace

from node.config import Config
from node.localnet.demo_plan import FIRST_ROUND, DemoOptions, PlanError, demo_plan, last_round, node_config
from node.localnet.toml import toml_text
from protocols.games import _games
from protocols.games.share import Share
from protocols.manifest import DataSpec, Manifest, manifest_digest
from protocols.manifest_rules import parse_manifest


def test_half_of_what_a_demo_trains_on_may_come_from_others() -> None:
    """The default swarm has four nodes, each of which asks for as many foreign groups as own ones."""
    plan = demo_plan(DemoOptions())
    assert [node.number for node in plan.nodes] == [1, 2, 3, 4]
    assert plan.manifest.game.local_groups == plan.manifest.game.external_groups == 16


@pytest.mark.parametrize("rounds", [1, 2, 6, 23, 24])
@pytest.mark.parametrize("every", [1, 2, 3, 5, 7])
def test_accuracy_is_measured_after_the_last_round(rounds: int, every: int) -> None:
    """The number after the last round is a multiple of the evaluation interval, and no asked-for round is lost."""
    last = last_round(rounds, every)
    assert (last + 1) % every == 0
    assert rounds <= last - FIRST_ROUND + 1 < rounds + every


def test_manifest_and_configuration_survive_their_files() -> None:
    """What a node reads from the written TOML is what was planned: the digest in the contract depends on it."""
    plan = demo_plan(DemoOptions(slow=2))
    config = node_config(plan.nodes[1], chain="ws://127.0.0.1:1", contract="0x" + "ab" * 20, model='a "quoted" \\ path')
    again = parse_manifest(toml_text(plan.manifest).encode())
    assert manifest_digest(again) == manifest_digest(plan.manifest)
    assert msgspec.toml.decode(toml_text(config), type=Config) == config


def test_a_slowed_node_can_not_make_one_group_in_a_round() -> None:
    """Only the named node is slowed, by more than a round for each group."""
    plan = demo_plan(DemoOptions(slow=3))
    slowed = [node.trainer.slowdown for node in plan.nodes]
    assert slowed[2] > plan.round_seconds
    assert slowed[:2] + slowed[3:] == [0.0, 0.0, 0.0]


def test_with_and_without_sharing_as_many_groups_are_trained_on() -> None:
    """The comparison changes nothing but where the groups come from."""
    on = demo_plan(DemoOptions(sparse=True, sharing=True))
    off = demo_plan(DemoOptions(sparse=True, sharing=False))
    assert off.manifest.game.external_groups == 0 < on.manifest.game.external_groups
    assert on.manifest.game.local_groups + on.manifest.game.external_groups == off.manifest.game.local_groups
    assert [node.trainer for node in on.nodes] == [node.trainer for node in off.nodes]


def test_every_node_has_a_seed_of_its_own() -> None:
    """No two nodes sample alike, and another demo seed changes them all."""
    seeds = [node.trainer.seed for seed in (0, 1) for node in demo_plan(DemoOptions(seed=seed)).nodes]
    assert len(set(seeds)) == len(seeds)


def test_a_real_swarm_keeps_prompt_and_grader_of_its_template() -> None:
    """Model and questions are the operator's, everything else the template's; two nodes play."""
    template = Manifest(name="mawps")
    data = DataSpec(source="jsonl:q.jsonl", digest="ab" * 32)
    plan = demo_plan(DemoOptions(model="somewhere", data="q.jsonl"), template, data)
    assert plan.manifest.data == data
    assert plan.manifest.game == template.game
    assert (len(plan.nodes), plan.model) == (2, "somewhere")
    assert plan.rounds >= 6


def test_a_debate_plays_three_stages_on_a_model_of_its_own() -> None:
    """Its manifest survives its file, and the length of a stage is that of each."""
    plan = demo_plan(DemoOptions(game="debate"))
    assert (plan.warmup, plan.model) == ("debate", "")
    assert [stage.name for stage in plan.manifest.stages] == ["answer", "critique", "resolve"]
    again = parse_manifest(toml_text(plan.manifest).encode())
    assert manifest_digest(again) == manifest_digest(plan.manifest)
    assert demo_plan(DemoOptions(game="debate", seconds=5)).round_seconds == 15


class Brief(Share):
    """Another package's game."""


def test_a_demo_plays_any_game_that_says_how_the_built_in_model_plays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The game gives sizes, times and warm-up, under the name by which it was registered."""
    monkeypatch.setattr("protocols.games._games", {**_games, "brief": Brief()})
    plan = demo_plan(DemoOptions(game="brief"))
    assert plan.manifest.game == replace(Share.builtin_model.spec, name="brief")
    assert (plan.round_seconds, plan.warmup) == (6, "arithmetic")


@pytest.mark.parametrize(
    "options",
    [
        DemoOptions(game="chess"),
        DemoOptions(game="debate", sparse=True),
        DemoOptions(game="debate", model="somewhere"),
        DemoOptions(peers=1),
        DemoOptions(peers=17),
        DemoOptions(slow=5),
        DemoOptions(rounds=-1),
        DemoOptions(data="q.jsonl"),
        DemoOptions(model="somewhere", sparse=True),
    ],
)
def test_options_that_make_no_swarm_are_refused(options: DemoOptions) -> None:
    """Each is refused with one line that names the option."""
    with pytest.raises(PlanError, match=r"^--"):
        demo_plan(options)
