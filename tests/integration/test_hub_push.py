"""Pushing to and loading from a stand-in of the Hugging Face hub, by the real client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import trio
import yaml
from structlog.testing import LogCapture
from transformers import AutoModelForCausalLM, AutoTokenizer

from node.bus import Bus
from node.config import HubSettings, TrainerSettings
from node.machine.inputs import CheckpointSaved, Stamped
from node.machine.status import CurvePoint, RewardPoint, Status, Totals
from node.trainer import hub as hub_module
from node.trainer.checkpoint import Checkpoints, Counters
from node.trainer.hub import HubService
from node.trainer.models import load_engine
from node.trainer.optimizer import make_optimizer
from node.trainer.tiny import TinyEngine
from node.trainer.warmstart import build_base_model
from protocols.manifest import GameSpec, Manifest
from tests.integration.hub_standin import TOKEN, Hub, standin

pytestmark = pytest.mark.integration

MANIFEST = Manifest(name="sums")
REPO = "alice/sums"
STATUS = Status(
    address="0x" + "12" * 20,
    phase="idle",
    round=6,
    stage=0,
    deadline=0.0,
    registered=True,
    chain="present",
    network="present",
    trainer="present",
    connected=3,
    reward=0.5,
    accuracy=0.5,
    curve=(CurvePoint(5, 1.0, 0.61),),
    rewards=(RewardPoint(5, 0.25), RewardPoint(6, 0.4), RewardPoint(6, 0.6, stage=1)),
    totals=Totals(rounds_worked=6, updates=12, own_groups=90, external_groups=70),
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with standin() as running:
        for name, value in {
            "HF_ENDPOINT": running.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN,
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        yield running


@pytest.fixture
def logged() -> Iterator[LogCapture]:
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(**before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base") / "model"
    build_base_model(directory, 0, steps=2)
    return directory


def save(base: Path, trainer: Path, round_number: int) -> None:
    engine = TinyEngine.load(base, GameSpec())
    counters = Counters(round=round_number, updates=2 * round_number)
    Checkpoints(trainer / "checkpoints", 2, trainer / "model").save(
        engine, make_optimizer(engine, TrainerSettings()), counters
    )


class Running:
    """The service on a bus of its own."""

    def __init__(self, base: Path, trainer: Path, **settings: object) -> None:
        self.bus, self.base, self.trainer = Bus(), base, trainer
        values = HubSettings(**{"repo": REPO, "every": 2, **settings})  # type: ignore[arg-type]
        self.service = HubService(values, MANIFEST, str(base), trainer, self.bus, lambda: STATUS)

    async def run(self) -> None:
        async def ignore(_: object) -> None:
            pass

        await self.service.run(ignore)

    def saved(self, number: int) -> None:
        save(self.base, self.trainer, number)
        self.bus.publish(Stamped(0.0, CheckpointSaved(number)), ())


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(90):
        while not holds():  # noqa: ASYNC110 - another process works
            await trio.sleep(0.02)


async def test_the_model_goes_to_the_hub_every_so_many_rounds(
    hub: Hub, base: Path, tmp_path: Path, logged: LogCapture
) -> None:
    """Two rounds make one commit: weights by LFS, tokenizer, a card with the curves; the next one two rounds later.

    What is there loads with transformers. Neither token nor path is in a log line or in the card.
    """
    running = Running(base, tmp_path / "trainer", private=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await trio.testing.wait_all_tasks_blocked()
        running.saved(5)
        running.saved(6)
        await until(lambda: (running.trainer / "hub.json").exists() and b'"round":6' in read(running.trainer))
        running.saved(7)
        await trio.testing.wait_all_tasks_blocked()
        running.saved(8)
        await until(lambda: b'"round":8' in read(running.trainer))
        nursery.cancel_scope.cancel()
    files = hub.repos[REPO]
    assert [message for _, message in hub.commits] == ["Round 6 of swarm sums", "Round 8 of swarm sums"]
    assert REPO in hub.private
    assert any(request.startswith("PUT /upload/") for request in hub.requests)
    _, metadata, text = files["README.md"].decode().split("---\n", 2)
    assert "swarm:sums" in yaml.safe_load(metadata)["tags"]
    assert "| 5 | 0.250 | 0.610 |\n| 6 | 0.500 |  |" in text
    assert str(base) not in text
    assert TOKEN not in str(logged.entries) + text
    for name, content in files.items():
        (tmp_path / "back").mkdir(exist_ok=True)
        (tmp_path / "back" / name).write_bytes(content)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "back").num_parameters() == 345_216
    assert AutoTokenizer.from_pretrained(tmp_path / "back").decode([1]) == "<|im_start|>"
    assert not any(path.name.startswith(".") for path in running.trainer.iterdir())


async def test_a_push_that_fails_is_a_warning_and_is_tried_again(
    hub: Hub, base: Path, tmp_path: Path, logged: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is refused fails with the hub's reason and not the token; accepted at the next try, it succeeds."""
    hub.token = "another"
    monkeypatch.setattr(hub_module, "FIRST_PAUSE", 0.01)
    running = Running(base, tmp_path / "trainer", every=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await trio.testing.wait_all_tasks_blocked()
        running.saved(1)
        await until(lambda: any(entry["event"] == "hub.push_failed" for entry in logged.entries))
        hub.token = TOKEN
        await until(lambda: any(entry["event"] == "hub.pushed" for entry in logged.entries))
        nursery.cancel_scope.cancel()
    failed = next(entry for entry in logged.entries if entry["event"] == "hub.push_failed")
    assert "401" in failed["reason"]
    assert TOKEN not in str(logged.entries)
    assert "model.safetensors" in hub.repos[REPO]


def test_a_model_comes_from_the_hub_once(hub: Hub, base: Path, tmp_path: Path) -> None:
    """A name is fetched the first time; with the hub gone the files that are here do; each fault is one line."""
    hub.repos[REPO] = {path.name: path.read_bytes() for path in base.iterdir()}
    (fetched,) = found(REPO)
    assert load_engine(TrainerSettings(model=fetched), GameSpec(), tmp_path).parameter_count == 345_216
    hub.repos.clear()
    hub.requests.clear()
    again, missing, nonsense = found(REPO, "alice/nothing", "a/b/c")
    assert again == fetched
    assert not any(REPO in request for request in hub.requests)
    assert "can't be fetched" in missing
    assert "no OWNER/NAME" in nonsense


def found(*models: str) -> list[str]:
    """Return the directory of each model, or the one line that says why there is none.

    In a process of its own: huggingface_hub reads its endpoint when it is imported.
    """
    code = """
import sys
from node.trainer.hub_load import local_directory
for model in sys.argv[1:]:
    try:
        print("=", local_directory(model))
    except ValueError as error:
        print("=", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *models], capture_output=True, text=True, check=True, env=os.environ, timeout=60
    )
    return [line.removeprefix("= ") for line in done.stdout.splitlines() if line.startswith("= ")]


def read(trainer: Path) -> bytes:
    return (trainer / "hub.json").read_bytes()
