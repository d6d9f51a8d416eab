"""The example package of docs/examples, installed as a stranger would install it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

EXAMPLE = ROOT / "docs" / "examples" / "dice"
PLAY = """
import sys
from pathlib import Path
from node.data.load import load_questions
from node.grading.registry import prepare_grader
from protocols.games.share import rewards
from protocols.manifest_rules import parse_manifest

manifest = parse_manifest(Path(sys.argv[1]).read_bytes())
prepare_grader(manifest.game.grader)
questions = load_questions(manifest.data, "", manifest.game.grader)
question = questions[0]
print(len(questions), len(questions.held_out(99)), question.text, question.answer)
texts = [f"it is {question.answer}", f"it is {int(question.answer) + 9}", "no idea"]
print(rewards(manifest.game, texts, question.answer))
"""


def play(*places: Path) -> subprocess.CompletedProcess[str]:
    """Load the example's manifest with these directories on the path."""
    path = os.pathsep.join([*map(str, places), str(Path.cwd())])
    return subprocess.run(
        [sys.executable, "-c", PLAY, str(EXAMPLE / "manifest.toml")],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def test_an_installed_package_brings_its_questions_and_its_grader(tmp_path: Path) -> None:
    """Installed without a network, both names of the manifest work; before, each is an error that says so."""
    before = play()
    assert "ValueError: the grader 'dice-distance/1' is unknown here" in before.stderr

    source = tmp_path / "source"
    subprocess.run(["cp", "-r", str(EXAMPLE), str(source)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
         "--target", str(tmp_path / "site"), str(source)],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    after = play(tmp_path / "site")

    assert after.returncode == 0, after.stderr
    facts, graded = after.stdout.splitlines()
    trained, held_out, *question = facts.split(" ")
    assert int(trained) + int(held_out) == 400
    assert int(held_out) > 20
    assert " ".join(question).endswith("What is their sum? 2")
    assert graded == "(1.0, 0.1, 0.0)"
