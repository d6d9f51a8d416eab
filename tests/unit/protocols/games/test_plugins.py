"""Games that other packages bring: the example of the documentation, installed as a package manager would."""

import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import protocols.games
from node.manifest_file import load_manifest
from node.runtime.game_plugins import GAMES, load_games
from node.validation.body_check import check_body
from protocols.games import StageContext, game_named, register_game
from protocols.games.share import Share
from protocols.manifest import GameSpec, Manifest
from protocols.manifest_rules import parse_manifest
from tests.support.debate_tables import SEED, Doubles, announced, body_of, groups_for
from tests.support.paths import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "concise"
PEER = "0x" + "11" * 20


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example on the path, with the metadata that an installer writes from its pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "concise.py", tmp_path)
    metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = "\n".join(f"{name} = {where}" for name, where in project["entry-points"][GAMES].items())
    (metadata / "entry_points.txt").write_text(f"[{GAMES}]\n{points}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(protocols.games, "_games", dict(protocols.games._games))
    yield tmp_path
    sys.modules.pop("concise", None)


def test_an_installed_game_is_played(installed: Path) -> None:
    """A manifest may name it, its parameters are checked, and a stranger's body gets the rewards that it gives."""
    assert load_games.__wrapped__() == ("concise",)
    text = (
        b'name = "t"\n[game]\nname = "concise"\nnum_prompts = 2\nnum_generations = 2\n[game.parameters]\nlength = 10\n'
    )
    manifest = parse_manifest(text)
    body = body_of(groups_for(manifest, PEER, 0, 2, lambda question, _: f"#### {2 * question}"))
    verdict = check_body(manifest, Doubles(), PEER, announced(body), body)
    lengths = [len(f"#### {2 * group.question}") for group in groups_for(manifest, PEER, 0, 2, lambda *_: "")]
    assert verdict.reward == pytest.approx(sum(0.5 + 0.5 * (1 - length / 10) for length in lengths))

    with pytest.raises(msgspec.ValidationError, match="length"):
        parse_manifest(text.replace(b"10", b"0"))


def test_a_manifest_on_disk_may_name_an_installed_game(installed: Path, tmp_path: Path) -> None:
    """Whichever command reads it: the package is asked first."""
    load_games.cache_clear()
    path = tmp_path / "manifest.toml"
    path.write_text('name = "t"\n[game]\nname = "concise"\n')
    assert load_manifest(path).game.name == "concise"
    load_games.cache_clear()


def test_a_game_that_nobody_brought_is_refused_by_name() -> None:
    """The error names what there is."""
    with pytest.raises(msgspec.ValidationError, match=r"no game is called 'chess'; there are .*debate, share"):
        parse_manifest(b'name = "t"\n[game]\nname = "chess"\n')


def test_a_broken_package_is_left_out(installed: Path) -> None:
    """The node runs without it."""
    (installed / "concise.py").write_text("raise RuntimeError('half written')")
    assert load_games.__wrapped__() == ()


def test_no_package_can_take_the_name_of_another_game() -> None:
    """Rules that peers agree on can't be swapped by installing something."""
    with pytest.raises(ValueError, match="two games"):
        register_game("share", Share())


def test_share_asks_the_peer_its_own_questions_and_knows_no_parameters() -> None:
    """The built-in single stage quotes nothing."""
    share, spec = game_named("share"), GameSpec()
    context = StageContext(seed=SEED, stage=0, slot=0, question="1+1?")
    assert share.prompt(spec, context, 10) == spec.prompt.replace("{question}", "1+1?")
    assert share.rewards(spec, context, ["#### 2", "#### 3"], "#### 2") == (1.0, 0.0)
    assert share.quotes(0) == ()
    assert share.question(bytes(32), SEED, PEER, 0, 0, 9999) != share.question(bytes(32), SEED, PEER, 0, 1, 9999)
    assert share.problems(msgspec.structs.replace(spec, parameters={"x": 1})) != []
    assert Manifest(name="t").game.name == "share"
