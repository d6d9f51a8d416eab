"""`swarm eval` and `swarm model`, called in this process."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from node.cli import main
from node.cli.eval import bounds
from node.config import TrainerSettings
from node.exits import Exit
from node.trainer.checkpoints.checkpoint import Checkpoints, Counters
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.learning.optimizer import make_optimizer
from protocols.manifest import GameSpec
from tests.support.paths import ROOT

DEBATE = ROOT / "configs" / "swarms" / "debate.toml"


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The commands log to a stderr that is pytest's own and gone after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base") / "model"
    build_builtin_model(directory, 0, steps=1)
    return directory


@given(st.integers(0, 400), st.integers(1, 400))
def test_bounds_hold_the_share(right: int, count: int) -> None:
    """Wilson's interval lies within [0, 1] around what was seen, and narrows with more questions."""
    share = min(right, count) / count
    low, high = bounds(share, count)
    assert 0 <= low <= share <= high <= 1
    wider = bounds(share, max(1, count // 2))
    assert high - low <= wider[1] - wider[0] + 1e-12


def test_bounds_are_wilsons() -> None:
    """10 of 40: worked out by hand from the paper's formula."""
    assert bounds(0.25, 40) == pytest.approx((0.1419, 0.4019), abs=1e-4)


def test_a_model_is_measured_the_same_every_time(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a data directory the swarm `local` is played; JSON and text tell the same."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    args = ("eval", "--data-dir", str(tmp_path / "none"), "--model", str(model), "--questions", "20")
    results = []
    for _ in range(2):
        assert call(*args, "--json") == Exit.OK
        results.append(json.loads(capsys.readouterr().out))
        results[-1].pop("seconds")
    assert results[0] == results[1]
    assert (results[0]["questions"], results[0]["data"], results[0]["round"]) == (20, "builtin:arithmetic", None)
    assert call(*args, "--greedy") == Exit.OK
    assert "20 held out of builtin:arithmetic, greedy" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_all_stages_of_a_game_are_measured(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for stages, a debate is played to its end; a critique is no answer, so it has no share of right ones."""
    args = ("eval", "--data-dir", str(tmp_path / "none"), "--model", str(model), "--swarm", str(DEBATE), "--stages")
    assert call(*args, "--questions", "4", "--json") == Exit.OK
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [each["name"] for each in stages] == ["answer", "critique", "resolve"]
    assert [each["right"] is None for each in stages] == [False, True, False]
    assert call(*args, "--questions", "4") == Exit.OK
    assert "critique   mean reward" in capsys.readouterr().out


@pytest.mark.parametrize(("grader", "code"), [("latex/1", Exit.OK), ("magic/3", Exit.CONFIG)])
def test_answers_are_graded_as_the_swarm_says(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], grader: str, code: Exit
) -> None:
    """Graders of packages too; one that is not here is refused before anything is sampled."""
    swarm = tmp_path / "manifest.toml"
    swarm.write_text(f'name = "t"\n[game]\ngrader = "{grader}"\nmax_completion = 4\n')
    args = ("eval", "--data-dir", str(tmp_path / "none"), "--model", str(model), "--swarm", str(swarm))
    assert call(*args, "--questions", "2") == code
    assert code == Exit.OK or f"the grader '{grader}' is unknown here" in capsys.readouterr().err


def test_the_newest_checkpoint_is_measured_and_exported(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a model named it is the node's own: round and updates are told, one certain checkpoint can be asked
    for, and what is exported measures the same."""
    engine = BuiltinEngine.load(model, GameSpec())
    checkpoints = Checkpoints(tmp_path / "trainer" / "checkpoints", 2, tmp_path / "trainer" / "model")
    for number in (3, 4):
        counters = Counters(round=number, updates=2 * number)
        checkpoints.save(engine, make_optimizer(engine, TrainerSettings()), counters)
    args = ("eval", "--data-dir", str(tmp_path), "--questions", "10", "--json")
    assert call(*args) == Exit.OK
    newest = json.loads(capsys.readouterr().out)
    assert (newest["round"], newest["updates"]) == (4, 8)
    older = tmp_path / "trainer" / "checkpoints" / "checkpoint-00000000"
    assert call(*args, "--checkpoint", str(older)) == Exit.OK
    assert json.loads(capsys.readouterr().out)["round"] == 3
    assert call("model", "export", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")) == Exit.OK
    assert "round 4, 8 updates" in capsys.readouterr().out
    assert call(*args, "--model", str(tmp_path / "out")) == Exit.OK
    assert json.loads(capsys.readouterr().out)["accuracy"] == newest["accuracy"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("eval",), Exit.MODEL, "no intact checkpoint"),
        (("eval", "--model", "a", "--checkpoint", "b"), Exit.USAGE, "--model and --checkpoint"),
        (("eval", "--model", "a/b/c"), Exit.MODEL, "a/b/c"),
        (("eval", "--checkpoint", "nowhere"), Exit.MODEL, "nowhere"),
        (("eval", "--model", "builtin", "--data", "nowhere.jsonl"), Exit.CONFIG, "nowhere.jsonl"),
        (("model", "export", "--out", "fresh"), Exit.MODEL, "no intact checkpoint"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...],
    code: Exit, says: str,
) -> None:  # fmt: skip
    """The line names what is missing; nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWARM_DATA_DIR", str(tmp_path / "node"))
    assert call(*args) == code
    error = capsys.readouterr().err
    assert error.startswith("swarm: ")
    assert error.count("\n") == 1
    assert says in error
    assert list(tmp_path.iterdir()) == []


def test_an_export_never_loses_anything(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that holds something is kept without --force; with it, unless it holds no model."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    args = ("model", "export", "--data-dir", str(tmp_path / "node"), "--out", str(tmp_path / "out"))
    assert call(*args) == Exit.EXISTS
    assert call(*args, "--force") == Exit.EXISTS
    assert "is not a model" in capsys.readouterr().err
    (tmp_path / "out" / "config.json").write_text("{}")
    assert call(*args, "--force") == Exit.MODEL
    assert (tmp_path / "out" / "letter.txt").read_text() == "dear"
