"""`swarm eval`."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from node.cli.init import swarm_manifests
from node.cli.options import data_dir_option, expanded
from node.config import TrainerSettings, load_config
from node.exits import Exit, Refusal
from node.logs import configure
from node.manifest_file import load_manifest
from node.trainer.evaluation import Evaluation, StageShare
from protocols.manifest import DataSpec, Manifest

if TYPE_CHECKING:
    from node.data.questions import Question
    from node.trainer.engines.engine import Engine

DEFAULT_SWARM = "local"
SURE = 1.96
"""Standard deviations around the mean of a normal distribution that contain 95 % of it."""


class EvalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The values of the flags."""

    home: Path
    model: str = ""
    checkpoint: Path | None = None
    swarm: str = ""
    data: str = ""
    questions: int = 0
    greedy: bool = False
    stages: bool = False
    settings: dict[str, Any] = {}


@click.command(name="eval", short_help="Measure a model's held-out accuracy.")
@data_dir_option
@click.option("--model", default="", metavar="DIR|NAME", help="A model; default: the node's newest checkpoint.")
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="DIR", help="A specific checkpoint.")
@click.option("--swarm", default="", metavar="FILE|NAME", help="Manifest with game and data; default: the node's.")
@click.option("--data", default="", metavar="FILE", help="Other questions: JSON lines, or a directory.")
@click.option(
    "--questions", type=click.IntRange(min=1), metavar="N", help="Number of questions; default: the manifest's."
)
@click.option("--greedy", is_flag=True, help="Take the most likely token instead of sampling.")
@click.option("--stages", is_flag=True, help="Also play all stages of the game, the model with itself.")
@click.option("--device", help="auto, cpu, cuda, mps.")
@click.option("--threads", help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def eval(
    data_dir: Path, model: str, checkpoint: Path | None, swarm: str, data: str, questions: int | None, greedy: bool,
    stages: bool, device: str | None, threads: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure held-out accuracy of a model, or of the newest checkpoint in this data directory.

    Questions and random numbers are always the same, so two results differ only by the models. The node may run
    meanwhile. Without a data directory the swarm is `local`, which needs no download.
    """
    if model and checkpoint:
        raise Refusal(Exit.USAGE, "--model and --checkpoint name two models; give only one of them")
    asked = EvalOptions(
        home=expanded(data_dir),
        model=model,
        checkpoint=checkpoint,
        swarm=swarm,
        data=data,
        questions=questions or 0,
        greedy=greedy,
        stages=stages,
        settings={"trainer.device": device, "trainer.threads": threads},
    )
    found = evaluate(asked)
    click.echo(msgspec.json.encode(found) if as_json else text_of(found))


def evaluate(asked: EvalOptions) -> Evaluation:
    """Load the model and the questions and measure. Raises `Refusal`."""
    config = load_config(asked.home, asked.settings, os.environ)
    configure(config.log, sys.stderr)
    manifest = manifest_of(asked)
    os.environ["OMP_NUM_THREADS"] = str(config.trainer.threads)  # read once, when torch is imported below
    import torch

    from node.trainer.worker.self_play import play_stages
    from node.trainer.worker.session import TaskContext, accuracy

    torch.set_num_threads(config.trainer.threads)
    held_out = _held_out(asked, manifest, config.trainer)
    name, engine, progress = _engine(asked, manifest, config.trainer)
    task = TaskContext(lambda: False, lambda done, total: None)
    began = time.monotonic()
    share = accuracy(engine, manifest.game, held_out, task, greedy=asked.greedy)
    low, high = bounds(share, len(held_out))
    pick_values = play_stages(engine, manifest, held_out, task, greedy=asked.greedy) if asked.stages else ()
    return Evaluation(
        model=name,
        data=manifest.data.source,
        questions=len(held_out),
        greedy=asked.greedy,
        temperature=manifest.game.temperature,
        accuracy=share,
        low=low,
        high=high,
        seconds=time.monotonic() - began,
        stages=tuple(
            StageShare(name=stage.name, reward=worth.reward, right=worth.right)
            for stage, worth in zip(manifest.stages, pick_values, strict=False)
        ),
        **progress,
    )


def _held_out(asked: EvalOptions, manifest: Manifest, settings: TrainerSettings) -> list[Question]:
    from node.data.load import load_questions
    from node.grading.registry import require_grader

    require_grader(manifest.game.grader)
    try:
        questions = load_questions(manifest.data, "" if asked.data else settings.data)
    except (OSError, ValueError) as error:
        raise Refusal(Exit.CONFIG, f"the questions can't be used: {error}; give others with --data") from error
    return questions.held_out(asked.questions or manifest.data.held_out)


def manifest_of(asked: EvalOptions) -> Manifest:
    """Return the manifest with game and data: the flag's, else the data directory's, else that of `local`."""
    own = asked.home / load_config(asked.home, {}, os.environ).manifest
    known = swarm_manifests()
    chosen = asked.swarm or ("" if own.exists() else DEFAULT_SWARM)
    manifest = load_manifest(known.get(chosen) or (Path(chosen).expanduser() if chosen else own))
    if not asked.data:
        return manifest
    other = DataSpec(
        source=f"jsonl:{expanded(Path(asked.data))}", question=manifest.data.question, answer=manifest.data.answer,
        held_out=manifest.data.held_out,
    )  # fmt: skip
    return msgspec.structs.replace(manifest, data=other)


def _engine(asked: EvalOptions, manifest: Manifest, settings: TrainerSettings) -> tuple[str, Engine, dict[str, int]]:
    """Return the model's name for the report, the model, and its training counters if known."""
    from node.trainer.checkpoints.export import NoModelError, checkpointed_model, current_model
    from node.trainer.engines.factory import load_engine

    trainer = asked.home / "trainer"
    place = trainer if trainer.is_dir() else cache_directory()
    try:
        if asked.model:
            return asked.model, load_engine(_with(settings, asked.model), manifest.game, place), {}
        found = checkpointed_model(expanded(asked.checkpoint)) if asked.checkpoint else current_model(trainer)
        engine = load_engine(_with(settings, str(found.directory)), manifest.game, place)
    except (NoModelError, OSError, ValueError) as error:
        raise Refusal(Exit.MODEL, str(error)) from error
    return str(found.directory.parent), engine, {"round": found.counters.round, "updates": found.counters.updates}


def _with(settings: TrainerSettings, model: str) -> TrainerSettings:
    return msgspec.structs.replace(settings, model=model, beta=0.0)  # no start is kept of what is not trained


def cache_directory() -> Path:
    """Return the cache directory for built-in models: below $XDG_CACHE_HOME, else ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "swarm-node" / "models"


def bounds(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's interval at 95 % for a share seen in `count` trials (E. B. Wilson, JASA 22, 1927)."""
    if not count:
        return 0.0, 1.0
    square = SURE**2 / count
    middle = (share + square / 2) / (1 + square)
    reach = SURE / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))


def text_of(found: Evaluation) -> str:
    """Return an evaluation as text."""
    how = "greedy" if found.greedy else f"sampled at temperature {found.temperature:g}"
    trained = "" if found.round is None else f", round {found.round}, {found.updates} updates"
    rows = [
        ("model", f"{found.model}{trained}"),
        ("questions", f"{found.questions} held out of {found.data}, {how}"),
        ("accuracy", f"{found.accuracy:.1%} ({found.low:.1%} to {found.high:.1%} at 95 %)"),
        *((each.name, _worth(each)) for each in found.stages),
        ("took", f"{found.seconds:.1f} s"),
    ]
    return "\n".join(f"{title:<10} {value}" for title, value in rows)


def _worth(stage: StageShare) -> str:
    right = "" if stage.right is None else f", {stage.right:.1%} of the answers right"
    return f"mean reward {stage.reward:.3f}{right}"
