"""From `trainer.model` to an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import structlog
from msgspec.structs import replace

from node.config import TrainerSettings
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.builtin_model import read_shape
from node.trainer.engines.builtin.sft_warmup import build_base_model
from node.trainer.engines.engine import Engine
from node.trainer.engines.hub_download import local_directory
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup
from protocols.manifest import GameSpec

log = structlog.get_logger()

BUILTIN, SPARSE = "builtin", "builtin:sparse"


def load_engine(
    settings: TrainerSettings, game: GameSpec, directory: Path, process_group: ProcessGroup = SINGLE_PROCESS
) -> Engine:
    """Return the engine of the model that the settings name.

    "" and "builtin" make the built-in model in `directory` unless it is there; "builtin:sparse" likewise with the
    sparse start; anything else is a directory or a name on the Hugging Face hub, of a built-in model or a causal LM of
    transformers. A gang of several ranks spreads the model. Raises ValueError with one line where it can't be had.
    """
    model = settings.model or BUILTIN
    if model in (BUILTIN, SPARSE):
        sparse = model == SPARSE
        kind = "debate" if game.name == "debate" else "sparse" if sparse else "base"
        target = directory / f"{kind}-{settings.seed}"
        if read_shape(target) is None:
            log.info("model.building", directory=str(target), model=kind)
            build_base_model(target, settings.seed, game=game.name, sparse=sparse)
        return _tiny(target, settings, game, process_group)
    place = local_directory(model)
    if read_shape(place) is not None:
        return _tiny(place, settings, game, process_group)
    if process_group.world_size > 1:
        return _sharded(replace(settings, model=str(place)), game, process_group)
    return _causal(replace(settings, model=str(place)), game)


def _sharded(settings: TrainerSettings, game: GameSpec, process_group: ProcessGroup) -> Engine:
    from node.trainer.engines.parallel_vllm import ParallelVllmEngine
    from node.trainer.engines.sharded import ShardedEngine, refuse_what_is_not_spread

    refuse_what_is_not_spread(settings)
    sampler = _sampler(settings)
    engine = (ParallelVllmEngine if sampler == "vllm" else ShardedEngine).load(replace(settings, engine=sampler), game)
    if isinstance(engine, ParallelVllmEngine):
        engine.optional = settings.engine == "auto"
    engine.spread_over(process_group)
    return engine


def _causal(settings: TrainerSettings, game: GameSpec) -> Engine:
    """Return a causal LM that samples by itself or through vLLM. Raises ValueError where that is not installed."""
    from node.trainer.engines.causal import CausalEngine
    from node.trainer.engines.vllm_engine import VllmEngine

    if _sampler(settings) == "hf":
        return CausalEngine.load(replace(settings, engine="hf"), game)
    engine = VllmEngine.load(replace(settings, engine="vllm"), game)
    engine.optional = settings.engine == "auto"
    return engine


def _sampler(settings: TrainerSettings) -> Literal["hf", "vllm"]:
    """Return what samples. Raises ValueError where vLLM is asked for and can't be had."""
    from node.trainer.engines.vllm_engine import installed
    from node.trainer.memory.placement import choose_device

    if settings.engine == "auto":
        large = choose_device(settings.device).type == "cuda" and settings.quantise == "none"
        return "vllm" if large and installed() else "hf"
    if settings.engine == "vllm" and settings.quantise != "none":
        raise ValueError('trainer.engine: vllm does not share 4-bit weights with the trainer: set it to "hf"')
    if settings.engine == "vllm" and not installed():
        raise ValueError("trainer.engine: vllm is not installed: pip install 'swarm-node[gpu]', or set trainer.python")
    return settings.engine


def _tiny(directory: Path, settings: TrainerSettings, game: GameSpec, process_group: ProcessGroup) -> BuiltinEngine:
    if process_group.world_size > 1:
        raise ValueError("trainer.world_size: the built-in model is trained by one process: set trainer.world_size = 1")
    engine = BuiltinEngine.load(directory, game, settings.device, kept=settings.beta > 0)
    engine.room = settings.micro_batch_tokens or engine.room
    engine.max_num_seqs = settings.max_num_seqs or engine.max_num_seqs
    return engine
