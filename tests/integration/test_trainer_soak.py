"""Hundreds of updates take no more memory than the first ones."""

from __future__ import annotations

import gc
import math
import os
from pathlib import Path

import pytest
import torch

from node.config import TrainerSettings
from node.trainer.checkpoints.checkpoint import Checkpoints
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.builtin_model import BuiltinModel, BuiltinShape
from node.trainer.engines.builtin.builtin_tokenizer import train_tokenizer
from node.trainer.engines.engine import TrainingGroup
from node.trainer.learning.learner import Learner
from protocols.manifest import GameSpec

pytestmark = pytest.mark.integration

UPDATES, WARM_UP, EVERY = 500, 60, 5
GAME = GameSpec(max_completion=12)


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_500_updates_grow_memory_by_less_than_one_percent(tmp_path: Path) -> None:
    """Sampling, updates of changing lengths and checkpoints, measured after a warm-up."""
    torch.set_num_threads(1)
    model = BuiltinModel(BuiltinShape(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2))
    model.initialise(1)
    engine = BuiltinEngine(model, train_tokenizer(), GAME)
    learner = Learner(engine, TrainerSettings(), GAME, Checkpoints(tmp_path / "checkpoints", 2, tmp_path / "model"))
    rng = torch.Generator().manual_seed(1)
    before = 0
    for number in range(UPDATES):
        if number % EVERY == 0:
            texts = [f"What is {number} + {n}?" for n in range(4)]
            samples = engine.sample(texts, 4, rng, lambda: False)
            groups = [
                TrainingGroup(
                    engine.encode(text),
                    [s.tokens for s in some],
                    [s.logps for s in some],
                    [1.0, -1.0, 0.5, -0.5],
                    False,
                )
                for text, some in zip(texts, samples, strict=True)
            ]
        assert learner.update(groups[: 1 + number % 4], math.inf, lambda: False)
        if number % 100 == 50:
            learner.save()
        if number == WARM_UP:
            before = resident()
    assert learner.counters.updates == UPDATES
    assert resident() < 1.01 * before
