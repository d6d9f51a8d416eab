"""One comparison: two processes take turns, update by update, so that what else the machine does hits both alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import click
import msgspec

from tools.bench_trl.cases import BenchCase, BenchJob, Done, Turn
from tools.bench_trl.environment import ROOT
from tools.bench_trl.line import GO
from tools.bench_trl.models import game_of, make_model, questions_of

SIDES = ("trl", "ours")
SKIPPED = 1
"""Updates at the start that are not counted: both sides allocate."""

HELD_OUT = 400


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """How one side did: medians of an update in seconds, peak memory in bytes, accuracy where it was measured.

    `cpu` is the process's own time: on a machine that does other work it is the steadier figure.
    """

    seconds: float
    generating: float
    training: float
    cpu: float
    peak: int
    rewards: list[float]
    tokens: int
    accuracy: float | None = None


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """One case with one seed."""

    case: str
    seed: int
    threads: int
    before: float | None
    trl: Side
    ours: Side

    @property
    def times(self) -> float:
        """How many times faster we are, by the medians."""
        return self.trl.seconds / self.ours.seconds

    @property
    def cpu_times(self) -> float:
        """The same by CPU time."""
        return self.trl.cpu / self.ours.cpu


class Contestant:
    """The process of one side."""

    def __init__(self, python: str, module: str, job: BenchJob, errors: IO[bytes]) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [python, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
            text=True, cwd=ROOT,
        )  # fmt: skip
        self._module = module
        self._errors = errors
        self._say(msgspec.json.encode(job).decode() + "\n")

    def turn(self) -> Turn:
        """Let it make one update."""
        self._say(GO)
        return msgspec.json.decode(self._hear(), type=Turn)

    def done(self) -> Done:
        """Return how it ended."""
        found = msgspec.json.decode(self._hear(), type=Done)
        self._process.wait()
        return found

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()

    def _say(self, text: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(text)
            self._process.stdin.flush()
        except BrokenPipeError:
            self._lost()

    def _hear(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline() or self._lost()

    def _lost(self) -> str:
        self._errors.seek(0)
        last = (self._errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise click.ClickException(f"{self._module} ended with {self._process.wait()}: {last}")


def play(case: BenchCase, seed: int, threads: int, their_python: str, place: Path) -> Match:
    """Play one case with one seed. Raises `click.ClickException` where a side fails."""
    model = make_model(case, place)
    questions = questions_of(case, seed)
    sides: dict[str, Side] = {}
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
        out = {side: str(Path(scratch) / side) if case.shape is None else "" for side in SIDES}
        job = BenchJob(case=case, model=str(model), questions=questions, threads=threads, seed=seed, out="")
        commands = {"trl": (their_python, "theirs", one), "ours": (sys.executable, "ours", other)}
        playing = {
            side: Contestant(python, f"tools.bench_trl.{module}", msgspec.structs.replace(job, out=out[side]), errors)
            for side, (python, module, errors) in commands.items()
        }
        try:
            turns: dict[str, list[Turn]] = {side: [] for side in SIDES}
            for _ in range(case.updates):
                for side in SIDES:
                    turns[side].append(playing[side].turn())
            for side in SIDES:
                peak = playing[side].done().peak
                sides[side] = side_of(turns[side], peak, accuracy_of(case, model, out[side]) if out[side] else None)
        finally:
            for contestant in playing.values():
                contestant.end()
    before = accuracy_of(case, model, str(model)) if case.shape is None else None
    return Match(case=case.name, seed=seed, threads=threads, before=before, **sides)


def side_of(turns: Sequence[Turn], peak: int, accuracy: float | None) -> Side:
    """Return the medians over the updates that count."""
    counted = turns[SKIPPED:] or turns
    return Side(
        seconds=statistics.median(turn.seconds for turn in counted),
        generating=statistics.median(turn.generating for turn in counted),
        training=statistics.median(turn.seconds - turn.generating for turn in counted),
        cpu=statistics.median(turn.cpu for turn in counted),
        peak=peak,
        rewards=[turn.reward for turn in turns],
        tokens=sum(turn.tokens for turn in turns),
        accuracy=accuracy,
    )


def accuracy_of(case: BenchCase, model: Path, weights: str) -> float:
    """Return the held-out accuracy of the built-in model with the weights of a directory."""
    from node.data.arithmetic import ArithmeticQuestions
    from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
    from node.trainer.worker.session import TaskContext, accuracy

    game, questions = game_of(case), ArithmeticQuestions().held_out(HELD_OUT)
    engine = BuiltinEngine.load(model, game)
    engine.load_weights(Path(weights))
    return accuracy(engine, game, questions, TaskContext(lambda: False, lambda done, total: None))
