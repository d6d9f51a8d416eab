"""Graders of foreign code in their pool: what hostile answers cost, and that nothing of them is executed."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.grading.latex_grader import is_harmless, screen
from node.grading.pool import PooledGrader
from node.grading.registry import prepare_grader

pytestmark = pytest.mark.integration

SECONDS = 1.0
SLACK = 1.5
"""Seconds that a fork and a busy machine may add."""

BOMBS = [
    "9**9**9**9", "9^{9^{9^{9}}}", "10^{10^{10}}!", "(10^6)!", "9^{999999999}", "2^{99999999}", "7^{7^{10}}",
    "(" * 3000 + "1" + ")" * 3000, r"\frac{1}{" * 400 + "1" + "}" * 400, r"\binom{1000000}{500000}", "9" * 100_000,
    "(x+y+z+w)^{300}", r"\int_0^{\infty} e^{-x^{x}} dx", r"\sum_{n=1}^{10^{12}} \frac{1}{n}",
    "x^{1000000} + (x+1)^{5000}", "٤٢", r"\text{" * 2000, "{" * 50_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def latex() -> Iterator[PooledGrader]:
    """The pool as a node uses it."""
    pytest.importorskip("math_verify", reason="needs the extra [math]")
    grader = PooledGrader("latex/1", screen, seconds=SECONDS)
    yield grader
    grader.close()


@pytest.fixture(scope="module")
def unscreened() -> Iterator[PooledGrader]:
    """The pool without what keeps bombs away from math-verify."""
    pytest.importorskip("math_verify", reason="needs the extra [math]")
    grader = PooledGrader("latex/1", None, seconds=SECONDS)
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("reference", "answer", "reward"),
    [
        (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2", 1.0), ("x^2+2x+1", "(x+1)^2", 1.0), ("1024", "2^{10}", 1.0),
        (r"\{1,2\}", r"\{2,1\}", 1.0), ("(1,2)", "(2,1)", 0.0), ("1/2", "0.50", 1.0), ("42", "43", 0.0),
        (r"\frac{\pi}{4}", r"\frac{\pi}{3}", 0.0), (r"\frac{\sqrt{3}}{2}", r"\dfrac{\sqrt3}{2}", 1.0), ("2", "2x", 0.0),
    ],
)  # fmt: skip
def test_expressions_that_mean_the_same_are_the_same(
    latex: PooledGrader, reference: str, answer: str, reward: float
) -> None:
    """LaTeX is compared as mathematics; plain numbers never leave the process."""
    assert latex(rf"so it is \boxed{{{answer}}}", reference) == reward


def test_no_bomb_reaches_the_parser_but_what_looks_like_an_answer(latex: PooledGrader) -> None:
    """Each is worth nothing, at once or within the limit."""
    for bomb in BOMBS:
        began = time.monotonic()
        assert latex(rf"\boxed{{{bomb}}}", r"\frac{x}{2}") == 0.0
        assert time.monotonic() - began < SECONDS + SLACK
    assert sum(map(is_harmless, BOMBS)) <= 1


def test_the_pool_survives_every_bomb_without_the_screen(unscreened: PooledGrader) -> None:
    """The limits hold by themselves: no bomb takes longer, the next honest answer is graded as ever."""
    for bomb in BOMBS:
        began = time.monotonic()
        assert unscreened(rf"\boxed{{{bomb}}}", r"\frac{x}{2}") == 0.0
        assert time.monotonic() - began < SECONDS + SLACK
    assert unscreened.gave_up >= 3
    assert unscreened(r"\boxed{\frac{2x}{4}}", r"\frac{x}{2}") == 1.0


def test_nothing_is_executed(unscreened: PooledGrader, tmp_path: Path) -> None:
    """Code in an answer stays text."""
    mark = tmp_path / "executed"
    for code in (f"__import__('os').system('touch {mark}')", rf"\input{{{mark}}}", f"open('{mark}', 'w')"):
        assert unscreened(rf"\boxed{{{code}}}", r"\frac{x}{2}") == 0.0
    assert not mark.exists()


PLUGIN = """
import os, time

def grade(completion, answer):
    if "sleep" in completion:
        time.sleep(60)
    if "eat" in completion:
        return float(len(bytearray(4 << 30)))
    if "die" in completion:
        os._exit(7)
    if "raise" in completion:
        raise RuntimeError(completion)
    if "write" in completion:
        open(answer, "w").write("x" * 100)
    return float(completion == "right")
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PooledGrader]:
    """A plug-in's grader that does on request what a broken parser does."""
    package = tmp_path / "plugin"
    (package / "hostile-1.dist-info").mkdir(parents=True)
    (package / "hostile.py").write_text(PLUGIN)
    (package / "hostile-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1\n")
    (package / "hostile-1.dist-info" / "entry_points.txt").write_text("[swarm.graders]\nhostile/1 = hostile:grade\n")
    monkeypatch.setenv("PYTHONPATH", f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}{os.pathsep}{Path.cwd()}")
    grader = PooledGrader("hostile/1", seconds=0.3)
    yield grader
    grader.close()


def test_a_grader_that_hangs_eats_dies_or_raises_costs_its_completion_only(
    hostile: PooledGrader, tmp_path: Path
) -> None:
    """The others of the group keep their rewards, in order; what ran into a bound is counted."""
    group = ["right", "sleep", "right", "eat", "wrong", "die", "raise", "right"]

    began = time.monotonic()
    assert hostile.many(group, "") == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert time.monotonic() - began < 2 + SLACK
    assert hostile.gave_up == 3

    target = tmp_path / "written"
    assert hostile.many(["write", "right"], str(target)) == [0.0, 1.0]
    assert not target.exists() or target.stat().st_size == 0


def test_a_worker_that_is_killed_is_replaced(hostile: PooledGrader) -> None:
    """The group that it had is worth nothing and counted; the next one is graded."""
    for worker in hostile._workers:
        worker._process.kill()

    assert hostile.many(["right", "right"], "") == [0.0, 0.0]
    assert hostile.many(["right", "wrong"], "") == [1.0, 0.0]
    assert hostile.gave_up == 2


def test_a_grader_that_can_not_be_loaded_says_why() -> None:
    """An unknown name lists the known ones; a pool whose worker can't load it ends with its reason."""
    with pytest.raises(ValueError, match=r"'magic/3' is unknown here; there are final-number/1, .*latex/1"):
        prepare_grader("magic/3")
    with pytest.raises(ValueError, match=r"magic/3 can't be loaded: no installed package offers 'magic/3'"):
        PooledGrader("magic/3", workers=1)
