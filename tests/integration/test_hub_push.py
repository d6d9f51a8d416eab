"""Pushing to and loading from a stand-in of the Hugging Face hub, by the real client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import torch
import trio
import yaml
from structlog.testing import LogCapture
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from trio.testing import wait_all_tasks_blocked

from node.backoff import Backoff
from node.config import HubSettings, TrainerSettings
from node.machine.inputs import CheckpointSaved, Stamped
from node.machine.status import CurvePoint, RewardPoint, Status, Totals
from node.publishing import hub_service as hub_module
from node.publishing.hub_push import PushRequest
from node.publishing.hub_service import HubService, pushing
from node.runtime.bus import Bus
from node.trainer.checkpoints.checkpoint import Checkpoints, Counters
from node.trainer.engines.builtin.builtin_engine import BuiltinEngine
from node.trainer.engines.builtin.builtin_tokenizer import train_tokenizer
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.engines.factory import load_engine
from node.trainer.learning.optimizer import make_optimizer
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
            "HF_ENDPOINT": running.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN,
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
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
    build_builtin_model(directory, 0, steps=2)
    return directory


def causal(base: Path) -> Path:
    return base.with_name("causal")


@pytest.fixture(scope="module")
def adapted(base: Path) -> Path:
    """A trainer's directory with adapters of a small Qwen 2, which are not those of the start."""
    pytest.importorskip("peft")
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(causal(base))  # type: ignore[no-untyped-call]
    train_tokenizer().save(causal(base))
    settings = TrainerSettings(model=str(causal(base)), device="cpu", engine="hf", lora=4)
    engine = load_engine(settings, GameSpec(), base)
    with torch.no_grad():
        for parameter in engine.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    trainer = base.with_name("adapted")
    Checkpoints(trainer / "checkpoints", 2, trainer / "model").save(
        engine, make_optimizer(engine, settings), Counters(round=1)
    )
    return trainer


def save(base: Path, trainer: Path, round_number: int) -> None:
    engine = BuiltinEngine.load(base, GameSpec())
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

    This hub has no xet: weights are offered that way first, as to the real one, and go by LFS in the same push.
    What is there loads with transformers. Neither token nor path is in a log line or in the card.
    """
    running = Running(base, tmp_path / "trainer", private=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await wait_all_tasks_blocked()
        running.saved(5)
        running.saved(6)
        await until(lambda: (running.trainer / "hub.json").exists() and b'"round":6' in read(running.trainer))
        running.saved(7)
        await wait_all_tasks_blocked()
        running.saved(8)
        await until(lambda: b'"round":8' in read(running.trainer))
        nursery.cancel_scope.cancel()
    files = hub.repos[REPO]
    assert [message for _, message in hub.commits] == ["Round 6 of swarm sums", "Round 8 of swarm sums"]
    assert REPO in hub.private
    assert any("xet-write-token" in request for request in hub.requests)
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
    monkeypatch.setattr(hub_module, "RETRY", Backoff(first=0.01, longest=0.01))
    running = Running(base, tmp_path / "trainer", every=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await wait_all_tasks_blocked()
        running.saved(1)
        await until(lambda: any(entry["event"] == "hub.push_failed" for entry in logged.entries))
        hub.token = TOKEN
        await until(lambda: any(entry["event"] == "hub.pushed" for entry in logged.entries))
        nursery.cancel_scope.cancel()
    failed = next(entry for entry in logged.entries if entry["event"] == "hub.push_failed")
    assert "401" in failed["reason"]
    assert TOKEN not in str(logged.entries)
    assert "model.safetensors" in hub.repos[REPO]


async def test_adapters_are_pushed_on_a_base_that_everybody_can_load(
    hub: Hub, base: Path, adapted: Path, tmp_path: Path
) -> None:
    """Alone they name their base as the hub does, not a directory here; merged they are a whole model."""
    alone, whole = tmp_path / "alone", tmp_path / "whole"
    before = (adapted / "model" / "adapter_config.json").read_bytes()
    for base_name, repo, back in (("alice/base", "alice/adapters", alone), ("", "alice/whole", whole)):
        order = PushRequest(
            trainer=str(adapted), repo=repo, private=False, token_file="", base=base_name, card="", message="m"
        )
        await pushing(order)
        back.mkdir()
        for name, content in hub.repos[repo].items():
            (back / name).write_bytes(content)
    assert (adapted / "model" / "adapter_config.json").read_bytes() == before
    assert str(tmp_path.parent) not in str(hub.repos)
    assert set(hub.repos["alice/adapters"]) >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert "model.safetensors" not in hub.repos["alice/adapters"]
    assert not (whole / "adapter_config.json").exists()
    hub.repos["alice/base"] = {path.name: path.read_bytes() for path in causal(base).iterdir()}
    code = "import sys, torch; from transformers import AutoModelForCausalLM as M; " \
        "x = torch.arange(8)[None]; a, b, c = (M.from_pretrained(d)(x).logits for d in sys.argv[1:]); " \
        "print(torch.allclose(a, b, atol=1e-4), torch.allclose(a, c, atol=1e-2))"  # fmt: skip
    command = [sys.executable, "-c", code, str(alone), str(whole), str(causal(base))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=60)  # noqa: ASYNC221
    assert done.stdout.split() == ["True", "False"], done.stderr


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
from node.trainer.engines.hub_download import local_directory
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
