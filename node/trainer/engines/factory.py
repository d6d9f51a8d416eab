"""From `trainer.model` and `trainer.engine` to an engine with its sampler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from node.config import TrainerSettings
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.builtin_model import read_shape
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.engines.decoder_sampler import DecoderSampler
from node.trainer.engines.engine import Engine
from node.trainer.engines.hub_download import local_directory
from node.trainer.engines.parallel_vllm_sampler import ParallelVllmSampler
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup
from node.trainer.engines.sampler import Sampler
from node.trainer.engines.vllm_sampler import VllmSampler
from protocols.games import builtin_setup
from protocols.manifest import GameSpec

if TYPE_CHECKING:
    from node.trainer.engines.causal import CausalEngine

log = structlog.get_logger()

BUILTIN, SPARSE = "builtin", "builtin:sparse"

DEFAULT_WARMUP = "arithmetic"
"""The warm-up of a game that declares none."""

SAMPLERS: dict[str, type[Sampler]] = {"hf": DecoderSampler, "vllm": VllmSampler}
"""Samplers of one rank by the value of `trainer.engine`."""

PARALLEL_SAMPLERS: dict[str, type[Sampler]] = {**SAMPLERS, "vllm": ParallelVllmSampler}
"""The same for several ranks."""

FASTEST_ON_CUDA = "vllm"
"""What "auto" takes on CUDA where it can be used."""


def load_engine(
    settings: TrainerSettings, game: GameSpec, directory: Path, process_group: ProcessGroup = SINGLE_PROCESS
) -> Engine:
    """Return the engine of the model that the settings name.

    "" and "builtin" make the built-in model in `directory` unless it is there, by the warm-up that the game declares;
    "builtin:sparse" likewise, with the answer format unlearned; anything else is a directory or a name on the Hugging
    Face hub, of a built-in model or a causal LM of transformers. A process group of several ranks shards the model.
    Raises ValueError with one line that says why the engine can't be had.
    """
    model = settings.model or BUILTIN
    if model in (BUILTIN, SPARSE):
        setup = builtin_setup(game.name)
        sparse, warmup = model == SPARSE, setup.warmup if setup else DEFAULT_WARMUP
        target = directory / f"builtin-{warmup}{'-sparse' if sparse else ''}-{settings.seed}"
        if read_shape(target) is None:
            log.info("model.building", directory=str(target), warmup=warmup, sparse=sparse)
            build_builtin_model(target, settings.seed, warmup=warmup, sparse=sparse)
        return _builtin(target, settings, game, process_group)
    place = local_directory(model)
    if read_shape(place) is not None:
        return _builtin(place, settings, game, process_group)
    return _causal(replace(settings, model=str(place)), game, process_group)


def _causal(settings: TrainerSettings, game: GameSpec, process_group: ProcessGroup) -> Engine:
    """Return a causal LM, on this rank alone or sharded over all of them, with the sampler of the settings."""
    # Imported here: transformers takes a second to import, and the built-in model does without.
    from node.trainer.engines.causal import CausalEngine
    from node.trainer.engines.sharded import ShardedEngine, refuse_what_is_not_sharded

    sharded = process_group.world_size > 1
    sampler = sampler_class(settings, PARALLEL_SAMPLERS if sharded else SAMPLERS)
    if not sharded:
        engine = CausalEngine.load(settings, game, sampler)
        add_sampler(engine, sampler, optional=settings.engine == "auto")
        return engine
    refuse_what_is_not_sharded(settings)
    spread = ShardedEngine.load(settings, game, sampler)
    spread.shard_over(process_group)
    add_sampler(spread, sampler, optional=settings.engine == "auto")
    return spread


def sampler_class(settings: TrainerSettings, known: dict[str, type[Sampler]]) -> type[Sampler]:
    """Return what samples. Raises ValueError where the settings ask for a sampler that can't be used."""
    from node.trainer.memory.placement import choose_device

    if settings.engine == "auto":
        fastest = known[FASTEST_ON_CUDA]
        on_cuda = choose_device(settings.device).type == "cuda"
        return fastest if on_cuda and not fastest.unusable(settings) else known["hf"]
    reason = known[settings.engine].unusable(settings)
    if reason:
        raise ValueError(f"trainer.engine: {reason}")
    return known[settings.engine]


def add_sampler(engine: CausalEngine, sampler: type[Sampler], *, optional: bool) -> None:
    """Have an engine sample by a sampler of this class.

    Raises ValueError if it can't serve the engine's model. If it is `optional`, the engine goes on decoding by itself.
    """
    if sampler is DecoderSampler:
        return
    try:
        engine.use_sampler(sampler(engine), optional=optional)
    except ValueError as error:
        if not optional:
            raise
        log.warning("sampler.unusable", sampler=sampler.name, reason=str(error))


def _builtin(directory: Path, settings: TrainerSettings, game: GameSpec, process_group: ProcessGroup) -> BuiltinEngine:
    if process_group.world_size > 1:
        raise ValueError("trainer.world_size: one process trains the built-in model: set trainer.world_size = 1")
    engine = BuiltinEngine.load(directory, game, settings.device, keep_reference=settings.beta > 0)
    engine.micro_batch_tokens = settings.micro_batch_tokens or engine.micro_batch_tokens
    engine.sampler.max_num_seqs = settings.max_num_seqs or engine.sampler.max_num_seqs
    return engine
