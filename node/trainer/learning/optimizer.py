"""The optimiser and its step size."""

from __future__ import annotations

from importlib import import_module

import torch

from node.config import TrainerSettings
from node.trainer.engines.engine import Engine

BETAS = (0.9, 0.95)


def make_optimizer(engine: Engine, settings: TrainerSettings) -> torch.optim.Optimizer:
    """Return the optimiser that trains an engine. Raises ValueError where the 8-bit one is not installed."""
    rate = settings.learning_rate
    if settings.optimizer == "adam":
        return torch.optim.AdamW(engine.parameters(), lr=rate, betas=BETAS, weight_decay=0.0, fused=True)
    try:
        adam = import_module("bitsandbytes.optim").AdamW8bit
    except ImportError as fault:
        raise ValueError("trainer.optimizer: adam8bit needs bitsandbytes: pip install 'swarm-node[quant]'") from fault
    made: torch.optim.Optimizer = adam(engine.parameters(), lr=rate, betas=BETAS, weight_decay=0.0)
    return made


def set_rate(optimizer: torch.optim.Optimizer, settings: TrainerSettings, updates: int) -> None:
    """Set the step size of the update that follows `updates` others: it rises linearly, then stays."""
    rate = settings.learning_rate * min(1.0, (updates + 1) / max(1, settings.warmup_steps))
    for group in optimizer.param_groups:
        group["lr"] = rate


def make_step(optimizer: torch.optim.Optimizer) -> None:
    """Make a step. One that fails before any other was made, for want of memory say, leaves no state behind: a state
    that is there in part is taken for a whole one ever after."""
    first = not optimizer.state
    try:
        optimizer.step()
    except (MemoryError, RuntimeError):
        if first:
            optimizer.state.clear()
        raise
