"""Our contestant: `python -m tools.bench_trl.ours`, the node's own engine and update."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from node.config import TrainerSettings
from node.trainer.engines.engine import Engine
from node.trainer.engines.factory import load_engine
from node.trainer.learning.optimizer import make_optimizer, set_rate
from protocols.games.share import rewards
from protocols.manifest import GameSpec
from tools.bench_trl.cases import BenchCase, Done, Turn, alternating
from tools.bench_trl.line import JsonLines, peak_bytes
from tools.bench_trl.models import game_of
from tools.training import Rollout, sampled, training_group, updated


def main() -> int:
    """Play every update when it is this side's turn."""
    line = JsonLines()
    job, case = line.job, line.job.case
    torch.set_num_threads(job.threads)
    game = game_of(case)
    settings = TrainerSettings(model=job.model, device="cpu", dtype=case.dtype, learning_rate=case.rate)
    engine = load_engine(settings, game, Path(job.model).parent)
    optimizer = make_optimizer(engine, settings)
    rng = torch.Generator().manual_seed(job.seed)
    for number in range(case.updates):
        set_rate(optimizer, settings, number)
        questions = job.questions[number * case.groups : (number + 1) * case.groups]
        line.wait()
        line.send(update(engine, optimizer, game, case, questions, rng, settings))
    if job.out:
        engine.save(Path(job.out))
    line.send(Done(peak=peak_bytes()))
    return 0


def update(
    engine: Engine, optimizer: torch.optim.Optimizer, game: GameSpec, case: BenchCase,
    questions: Sequence[tuple[str, str]], rng: torch.Generator, settings: TrainerSettings,
) -> Turn:  # fmt: skip
    """Sample, grade, make one step; return what it took."""
    began, spent = time.perf_counter(), time.process_time()
    texts = [text for text, _ in questions]
    samples = sampled(engine, game, texts, rng)
    generating = time.perf_counter() - began
    rollouts = [
        Rollout(text, group, graded(case, game, [sample.text for sample in group], answer))
        for (text, answer), group in zip(questions, samples, strict=True)
    ]
    groups = [training_group(engine, game, rollout) for rollout in rollouts]
    updated(engine, optimizer, groups, settings, game)
    means = [sum(rollout.rewards) / len(rollout.rewards) for rollout in rollouts]
    return Turn(
        seconds=time.perf_counter() - began,
        generating=generating,
        cpu=time.process_time() - spent,
        reward=sum(means) / len(means),
        tokens=sum(len(sample.tokens) for group in samples for sample in group),
    )


def graded(case: BenchCase, game: GameSpec, texts: Sequence[str], answer: str) -> tuple[float, ...]:
    """Return the rewards of a group."""
    return rewards(game, texts, answer) if case.shape is None else tuple(alternating(len(texts)))


if __name__ == "__main__":
    sys.exit(main())
