"""From `trainer.model` to an engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from node.config import TrainerSettings
from node.trainer.engine import Engine
from node.trainer.hub_load import local_directory
from node.trainer.tiny import TinyEngine
from node.trainer.tiny_model import read_shape
from node.trainer.warmstart import build_base_model
from protocols.manifest import GameSpec

log = structlog.get_logger()

BUILTIN, SPARSE = "builtin", "builtin:sparse"


def load_engine(settings: TrainerSettings, game: GameSpec, directory: Path) -> Engine:
    """Return the engine of the model that the settings name.

    "" and "builtin" make the built-in model in `directory` unless it is there; "builtin:sparse" likewise with the
    sparse start; anything else is a directory or a name on the Hugging Face hub, of a built-in model or a causal LM of
    transformers. Raises ValueError with one line where it can't be had.
    """
    model = settings.model or BUILTIN
    if model in (BUILTIN, SPARSE):
        sparse = model == SPARSE
        kind = "debate" if game.name == "debate" else "sparse" if sparse else "base"
        target = directory / f"{kind}-{settings.seed}"
        if read_shape(target) is None:
            log.info("model.building", directory=str(target), model=kind)
            build_base_model(target, settings.seed, game=game.name, sparse=sparse)
        return _tiny(target, settings, game)
    place = local_directory(model)
    if read_shape(place) is not None:
        return _tiny(place, settings, game)
    from node.trainer.causal import CausalEngine

    return CausalEngine.load(msgspec.structs.replace(settings, model=str(place)), game)


def _tiny(directory: Path, settings: TrainerSettings, game: GameSpec) -> TinyEngine:
    engine = TinyEngine.load(directory, game, settings.device, kept=settings.kl > 0)
    engine.room = settings.micro_tokens or engine.room
    engine.rows_at_once = settings.sample_rows or engine.rows_at_once
    return engine
