"""Reward, loss and accuracy for TensorBoard and Weights & Biases: a supervised service that follows the bus.

Both packages are extras (`swarm-node[tensorboard]`, `swarm-node[wandb]`) and are imported only if configured. Their
calls run in a thread, since they write files and start processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
import trio

from node.config import TrackerSettings
from node.machine import inputs as i
from node.ports.service import Report
from node.runtime.bus import Bus
from protocols.manifest import Manifest

log = structlog.get_logger()


class Measures(msgspec.Struct, frozen=True):
    """Values that one input adds for a round, by name."""

    round: int
    values: dict[str, float]


def measures(happened: i.AnyInput, stages: Sequence[str]) -> Measures | None:
    """Return the values that an input adds to the curves, None if it adds nothing.

    If a round has several stages, value names include the stage's.
    """

    def named(name: str, stage: int) -> str:
        return f"{name}/{stages[stage]}" if len(stages) > 1 and 0 <= stage < len(stages) else name

    match happened:
        case i.RolloutsGenerated(groups=groups) if groups:
            return Measures(happened.round, {named("reward", happened.stage): happened.reward / groups})
        case i.TrainingFinished(updates=updates) if updates:
            counts = {"own_groups": happened.own, "external_groups": happened.external, "updates": updates}
            values = {"loss": happened.loss, **{name: float(count) for name, count in counts.items()}}
            return Measures(happened.round, {named(name, happened.stage): value for name, value in values.items()})
        case i.EvaluationFinished():
            return Measures(happened.round, {"accuracy": happened.accuracy})
    return None


class ExperimentTracker(Protocol):
    """A destination of curves. Called from one thread at a time."""

    def write(self, found: Measures) -> None:
        """Add one point to each of these curves."""

    def close(self) -> None:
        """Flush buffered points."""


class TensorBoard:
    """Event files for TensorBoard, written without torch, which the node's process does not load."""

    def __init__(self, directory: Path) -> None:
        from tensorboard.summary import Writer

        self._writer: Any = Writer(str(directory))

    def write(self, found: Measures) -> None:
        """Add one point to each of these curves."""
        for name, value in found.values.items():
            self._writer.add_scalar(name, value, found.round)
        self._writer.flush()

    def close(self) -> None:
        """Flush buffered points."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, offline unless WANDB_MODE says otherwise; `round` is its step."""

    def __init__(self, directory: Path, project: str, config: Mapping[str, str]) -> None:
        import wandb

        directory.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=project,
            dir=str(directory),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="round")

    def write(self, found: Measures) -> None:
        """Add one point to each of these curves."""
        self._run.log({"round": found.round, **found.values})

    def close(self) -> None:
        """Flush buffered points."""
        self._run.finish()


Opener = Callable[[], ExperimentTracker]


def configured(settings: TrackerSettings, manifest: Manifest, peer: str, home: Path) -> dict[str, Opener]:
    """Return the function that opens each configured tracker, by the name of its extra."""
    openers: dict[str, Opener] = {}
    if settings.tensorboard:
        openers["tensorboard"] = lambda: TensorBoard(home / "tensorboard")
    if settings.wandb:
        facts = {"swarm": manifest.name, "model": manifest.model, "peer": peer}
        openers["wandb"] = lambda: Wandb(home / "wandb", settings.wandb, facts)
    return openers


class TrackerService:
    """`node.ports.service.Service` that writes curves; takes no commands and reports nothing."""

    name = "trackers"

    def __init__(self, openers: Mapping[str, Opener], stages: Sequence[str], bus: Bus) -> None:
        self._openers, self._stages, self._bus = openers, stages, bus

    @property
    def wanted(self) -> bool:
        """Whether any tracker is configured."""
        return bool(self._openers)

    async def execute(self, command: object) -> None:
        """Raise TypeError: the trackers take no commands."""
        raise TypeError(f"the trackers take no commands, got {type(command).__name__}")

    async def run(self, report: Report) -> None:
        """Write the bus's events until cancelled."""
        with self._bus.subscribe() as subscription:
            trackers = [tracker for name in self._openers if (tracker := await self._open(name))]
            try:
                async for happening in subscription:
                    found = measures(happening.stamped.input, self._stages)
                    for tracker in trackers if found else ():
                        await in_thread(tracker.write, found)
            finally:
                with trio.CancelScope(shield=True):
                    for tracker in trackers:
                        await in_thread(tracker.close)

    async def _open(self, name: str) -> ExperimentTracker | None:
        """Return a tracker; log a warning and return None if its package is missing."""
        try:
            tracker: ExperimentTracker = await in_thread(self._openers[name])
        except ImportError as error:
            log.warning("tracker.missing", tracker=name, reason=str(error), advice=f"pip install swarm-node[{name}]")
            return None
        return tracker


async def in_thread(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a blocking function in a thread."""
    return await trio.to_thread.run_sync(function, *arguments)
