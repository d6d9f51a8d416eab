"""Where a causal model is placed, and what its activations cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from node.trainer.frames import TrainerSettings

TRAINED_BYTES = 16
"""Bytes a parameter takes in float32 training with Adam: weight, gradient and two moments."""


class Placement(NamedTuple):
    """Where weights lie and in what type; `autocast` is the type of the arithmetic where it differs."""

    device: torch.device
    weights: torch.dtype
    autocast: torch.dtype | None


def choose_device(name: str) -> torch.device:
    """Return the device of a setting; "auto" takes CUDA, then Apple's GPU, then the CPU. Raises ValueError."""
    if name == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"trainer.device: {name!r} is none that torch knows: use auto, cpu, cuda or mps") from None


def choose_placement(settings: TrainerSettings, parameters: int) -> Placement:
    """Return device and types for a model of `parameters`. Raises ValueError naming the setting that is wrong.

    "auto" computes in float32 on the CPU and in bfloat16 on CUDA. There the weights stay float32 while they fit:
    a step of 3e-5 is lost in the rounding of a bfloat16 weight.
    """
    device = choose_device(settings.device)
    if settings.dtype == "auto":
        if device.type != "cuda":
            return Placement(device, torch.float32, None)
        fits = parameters * TRAINED_BYTES < 0.7 * free_bytes(device, 0)
        return Placement(device, torch.float32 if fits else torch.bfloat16, torch.bfloat16 if fits else None)
    named = getattr(torch, settings.dtype, None)
    if named not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"trainer.dtype: {settings.dtype!r} is none: use auto, float32, bfloat16 or float16")
    return Placement(device, named, None)


def free_bytes(device: torch.device, limit_mib: int) -> int:
    """Return the bytes that may still be taken: of the GPU, of `limit_mib` (0: none set), or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if limit_mib:
        return max(0, (limit_mib << 20) - _resident_bytes())
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux: physical pages, of which half may be in use
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def activation_bytes(config: Any, tokens: int, width: int) -> int:
    """Estimate what a forward pass over `tokens` keeps for its backward pass, in bytes.

    A layer of the Llama kind keeps about 15 states of its hidden width, 5 of its inner width and two scores for each
    head and key a token sees (prefix, question and own: about 256).
    """
    hidden, inner = int(config.hidden_size), int(getattr(config, "intermediate_size", 0) or 4 * config.hidden_size)
    a_layer = 15 * hidden + 5 * inner + 2 * 256 * int(config.num_attention_heads)
    return tokens * int(config.num_hidden_layers) * a_layer * width


def cache_bytes(config: Any, width: int) -> int:
    """Return what one token takes in the key-value cache, in bytes."""
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    wide = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return 2 * int(config.num_hidden_layers) * heads * wide * width


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
