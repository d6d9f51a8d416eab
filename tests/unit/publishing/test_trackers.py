"""Curves for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio.testing import wait_all_tasks_blocked

from node.config import TrackerSettings
from node.machine import inputs as i
from node.publishing.trackers import ExperimentTracker, Measures, TensorBoard, TrackerService, configured, measures
from node.runtime.bus import Bus
from protocols.manifest import Manifest

GENERATED = i.RolloutsGenerated(3, 0, b"", 10, 4, 1.0, 2.0)
TRAINED = i.TrainingFinished(3, 0, 2, 4, 5, -0.25, 1.0)
EVALUATED = i.EvaluationFinished(3, 0.75, 40, 1.0)


@pytest.fixture
def logged() -> Iterator[LogCapture]:
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(**before)


class Notebook:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.found: list[Measures] = []
        self.closed = False

    def write(self, found: Measures) -> None:
        self.found.append(found)

    def close(self) -> None:
        self.closed = True


def test_rewards_losses_and_accuracies_are_measures() -> None:
    """Rewards are means per group; an input that measures nothing adds nothing."""
    assert measures(GENERATED, ["play"]) == Measures(3, {"reward": 0.25})
    assert measures(TRAINED, ["play"]) == Measures(
        3, {"loss": -0.25, "own_groups": 4.0, "external_groups": 5.0, "updates": 2.0}
    )
    assert measures(EVALUATED, ["play"]) == Measures(3, {"accuracy": 0.75})
    assert measures(i.RolloutsGenerated(3, 0, b"", 0, 0, 0.0, 2.0), ["play"]) is None
    assert measures(i.NodeStarted(), ["play"]) is None


def test_stages_have_curves_of_their_own() -> None:
    """In a game of several stages each value carries its stage's name."""
    later = i.RolloutsGenerated(3, 1, b"", 10, 4, 1.0, 2.0)
    assert measures(later, ["answer", "critique"]) == Measures(3, {"reward/critique": 0.25})


async def test_a_tracker_hears_the_bus_and_is_closed() -> None:
    """What the machine takes is written in order; at the end nothing is held back."""
    bus, notebook = Bus(), Notebook()
    await follow(TrackerService({"own": lambda: notebook}, ["play"], bus), bus)
    assert [found.values for found in notebook.found] == [{"reward": 0.25}, {"accuracy": 0.75}]
    assert notebook.closed


async def test_a_missing_package_is_one_line(logged: LogCapture) -> None:
    """The line says what to install; other trackers go on."""

    def missing() -> ExperimentTracker:
        raise ModuleNotFoundError("No module named 'wandb'")

    bus, notebook = Bus(), Notebook()
    await follow(TrackerService({"wandb": missing, "own": lambda: notebook}, ["play"], bus), bus)
    assert [(line["event"], line["advice"]) for line in logged.entries] == [
        ("tracker.missing", "pip install swarm-node[wandb]")
    ]
    assert len(notebook.found) == 2


async def follow(service: TrackerService, bus: Bus) -> None:
    async def ignore(_: i.AnyInput) -> None:
        pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run, ignore)
        await wait_all_tasks_blocked(0.05)
        for happened in (GENERATED, i.NodeStarted(), EVALUATED):
            bus.publish(i.Stamped(0.0, happened), ())
        await wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()


def test_nothing_is_opened_unless_configured(tmp_path: Path) -> None:
    """By default there is no tracker, and the service is not wanted."""
    assert configured(TrackerSettings(), Manifest(name="x"), "0x1", tmp_path) == {}
    assert not TrackerService({}, ["play"], Bus()).wanted
    both = configured(TrackerSettings(tensorboard=True, wandb="p"), Manifest(name="x"), "0x1", tmp_path)
    assert set(both) == {"tensorboard", "wandb"}


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    """TensorBoard's own reader finds each curve with its rounds."""
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    board = TensorBoard(tmp_path)
    board.write(Measures(3, {"reward": 0.25}))
    board.write(Measures(4, {"reward": 0.5}))
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors("reward")]
    assert points == [(3, 0.25), (4, 0.5)]


def test_wandb_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network and without an account a run directory is written."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    from node.publishing.trackers import Wandb

    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = Wandb(tmp_path / "wandb", "project", {"swarm": "x"})
    run.write(Measures(3, {"reward": 0.25}))
    run.close()
    assert list(tmp_path.glob("wandb/**/offline-run-*/*.wandb"))
