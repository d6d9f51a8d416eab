"""Where a causal model lies, in what type, and how much of the device it may take: decided before it is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import structlog
import torch
from transformers import AutoModelForCausalLM

from node.trainer.engines.decoder_sampler import DecoderSampler
from node.trainer.engines.sampler import Sampler
from node.trainer.memory.memory_plan import (
    GPU_OVERHEAD,
    MemoryPlan,
    MemoryRequest,
    ModelShape,
    plan_memory,
    refusal,
    table,
)
from node.trainer.messages import TrainerSettings
from protocols.manifest import GameSpec

log = structlog.get_logger()

FLOAT16, BFLOAT16, FLOAT32 = torch.float16, torch.bfloat16, torch.float32
AMPERE = (8, 0)
"""First CUDA capability that computes in bfloat16."""

LARGE = 50_000_000
"""Parameters from which on bfloat16 pays on a CPU; in smaller models casts take what products save."""


class Placement(NamedTuple):
    """Where weights lie and in what type; `autocast` is the type of the arithmetic where it differs."""

    device: torch.device
    weights: torch.dtype
    autocast: torch.dtype | None

    @property
    def dtype(self) -> torch.dtype:
        """Type of the arithmetic."""
        return self.autocast or self.weights

    @property
    def half(self) -> bool:
        """Whether gradients are computed in float16, those of adapters through a float16 base among them."""
        return FLOAT16 in (self.weights, self.autocast)


class Site(NamedTuple):
    """A model's place and its memory plan."""

    placement: Placement
    plan: MemoryPlan


# --- device -----------------------------------------------------------------------------------------------------------


def choose_device(name: str) -> torch.device:
    """Return the device of a setting; "auto" takes CUDA, then Apple's GPU, then the CPU. Raises ValueError."""
    if name == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"trainer.device: {name!r} is none that torch knows: use auto, cpu, cuda or mps") from None


def free_bytes(device: torch.device, limit_mib: int) -> int:
    """Return the bytes that may still be taken: of the GPU, of `limit_mib` (0: none set), or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if limit_mib:
        return max(0, (limit_mib << 20) - _resident_bytes())
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux: physical pages, of which half may be in use
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


# --- shape ------------------------------------------------------------------------------------------------------------


def shape_of(config: Any) -> ModelShape:
    """Return the sizes of a model from its configuration; weights are neither read nor allocated.

    Raises ValueError for a model without attention.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        raise ValueError(f"trainer.model: {type(model).__name__} can't share its prompt: choose another")
    head = model.get_output_embeddings()
    linear = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and each is not head]
    return ModelShape(
        parameters=sum(each.numel() for each in model.parameters()),
        matrices=sum(each.weight.numel() for each in linear),
        edges=sum(each.in_features + each.out_features for each in linear),
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        inner=int(getattr(config, "intermediate_size", 0) or 4 * config.hidden_size),
        heads=int(heads),
        key_value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_width=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocabulary=int(config.vocab_size),
    )


# --- decision ---------------------------------------------------------------------------------------------------------


def choose_site(
    settings: TrainerSettings, game: GameSpec, shape: ModelShape, prefix: int, sampler: type[Sampler]
) -> Site:
    """Return where the model goes and what it and a sampler of this class may take; log the plan as a table.

    "auto" computes in float32 on MPS, in bfloat16 on CUDA (float16 where that is not built in), and on a CPU in what it
    is made for. Full weights stay float32 while they fit: a step of 3e-5 is lost in the rounding of a bfloat16 weight.
    Raises ValueError in one line where the model does not fit, naming what to change.
    """
    device = choose_device(settings.device)
    budget = int(free_bytes(device, settings.memory_limit_mib) * settings.gpu_memory_utilization)
    choices = [Site(each, plan_memory(shape, ask_of(settings, game, each, prefix, sampler), budget))
               for each in placements(settings, device, shape.parameters)]  # fmt: skip
    site = next((each for each in choices if each.plan.fits), choices[-1])
    report(site)
    if not site.plan.fits:
        ask = ask_of(settings, game, site.placement, prefix, sampler)
        raise ValueError(f"trainer.model: {refusal(shape, ask, budget)}")
    return site


def placements(settings: TrainerSettings, device: torch.device, parameters: int) -> list[Placement]:
    """Return the placements that the settings allow for a model of so many parameters, best first."""
    kind = settings.dtype
    if kind == "auto":
        kind = "float32" if device.type != "cuda" else "float16" if _before_ampere(device) else "bfloat16"
        mixed = Placement(device, FLOAT32, getattr(torch, kind)) if kind != "float32" else None
    else:
        mixed = Placement(device, FLOAT32, FLOAT16) if kind == "float16" else None
    low: torch.dtype = getattr(torch, kind)
    if settings.dtype == "auto" and device.type == "cpu" and not settings.lora and parameters >= LARGE:
        mixed = Placement(device, FLOAT32, BFLOAT16) if multiplies_bfloat16() else None
    if settings.lora:
        # The base is frozen, so that nothing is lost in its rounding; adapters are float32 in any case.
        return [Placement(device, low, low if device.type == "cuda" and low != FLOAT32 else None)]
    if kind == "float16":
        assert mixed
        return [mixed]
    return [*([mixed] if mixed else []), Placement(device, low, None)]


def multiplies_bfloat16() -> bool:
    """Return True if this CPU has instructions for products in bfloat16: about twice as fast as float32."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _before_ampere(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) < AMPERE


def ask_of(
    settings: TrainerSettings,
    game: GameSpec,
    placement: Placement,
    prefix: int,
    sampler: type[Sampler] = DecoderSampler,
) -> MemoryRequest:
    """Return what the settings, the game, a placement and a sampler ask of the memory."""
    quantised = settings.quantise != "none"
    decoder = DecoderSampler.memory(placement.device, placement.dtype, quantised=quantised)
    return MemoryRequest(
        weights=placement.weights.itemsize,
        arithmetic=placement.dtype.itemsize,
        lora=settings.lora,
        nf4=settings.quantise == "nf4",
        adam8bit=settings.optimizer == "adam8bit",
        reference=settings.beta > 0,
        prefix=prefix,
        prompt=game.max_prompt,
        completion=game.max_completion,
        group=game.num_generations,
        groups=max(game.num_prompts, game.local_groups + game.external_groups),
        micro_batch_tokens=settings.micro_batch_tokens,
        max_num_seqs=settings.max_num_seqs,
        gradient_checkpointing=settings.gradient_checkpointing,
        sampler=sampler.memory(placement.device, placement.dtype, quantised=quantised),
        decoder=None if sampler is DecoderSampler else decoder,
        world_size=settings.world_size,
        overhead=GPU_OVERHEAD if placement.device.type == "cuda" else 0,
    )


def report(site: Site) -> None:
    """Log the plan, one row a line, and what was chosen."""
    for part, amount in table(site.plan):
        log.info("memory.plan", part=part, amount=amount)
    placement = site.placement
    log.info(
        "memory.chosen",
        device=str(placement.device),
        weights=str(placement.weights).removeprefix("torch."),
        arithmetic=str(placement.dtype).removeprefix("torch."),
        update=site.plan.micro_batch_tokens,
        sampling=site.plan.max_num_seqs,
        gradient_checkpointing=site.plan.gradient_checkpointing,
        fits=site.plan.fits,
    )
