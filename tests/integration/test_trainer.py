"""The trainer's client with real children."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio

from node.config import TrainerSettings
from node.data.arithmetic import ArithmeticQuestions
from node.machine import commands as c
from node.machine import inputs as i
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.service import worker_client as link_module
from node.trainer.service.worker_client import WorkerClient
from node.validation.body_check import check_body
from protocols.identifiers import Digest
from protocols.manifest import DataSpec, GameSpec, Manifest
from protocols.wire import Announcement, decode_rollouts

pytestmark = pytest.mark.integration

InputT = TypeVar("InputT", bound=i.Input)
PEER = "0x" + "11" * 20
SEED = bytes(range(32))
MANIFEST = Manifest(
    name="test", data=DataSpec(held_out=40), game=GameSpec(num_prompts=8, local_groups=8, external_groups=8, updates=2)
)  # fmt: skip


class MemoryBodies:
    """Bodies in memory."""

    def __init__(self) -> None:
        self.kept: dict[Digest, bytes] = {}

    def get(self, digest: Digest) -> bytes | None:
        return self.kept.get(digest)

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        self.kept[digest] = body


class Running:
    """A worker client that runs, and what it reported."""

    def __init__(
        self, client: WorkerClient, bodies: MemoryBodies, reports: trio.MemoryReceiveChannel[i.AnyInput]
    ) -> None:
        self.client, self.bodies, self.reports = client, bodies, reports

    async def next(self, kind: type[InputT]) -> InputT:
        with trio.fail_after(90):
            got = await self.reports.receive()
        assert isinstance(got, kind), got
        return got

    async def ready(self) -> i.TrainerReady:
        return await self.next(i.TrainerReady)

    async def gives_up(self, seconds: float) -> None:
        """Abort whatever is under way; the child answers in time, and the machine hears nothing of it."""
        await self.client.execute(c.AbortWork(3, 0, "skipped"))
        with trio.fail_after(seconds):
            while self.client._in_flight._jobs:  # noqa: ASYNC110 - the child says so by a frame
                await trio.sleep(0.005)
        with pytest.raises(trio.WouldBlock):
            self.reports.receive_nowait()

    @property
    def pid(self) -> int:
        assert self.client._child is not None
        return self.client._child.pid


Start = Callable[..., Awaitable[Running]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "builtin"
    build_builtin_model(directory, 0, steps=30)
    return directory


@asynccontextmanager
async def running(model: Path | str, directory: Path, **settings: object) -> AsyncIterator[Running]:
    chosen = msgspec.convert({"model": str(model), **settings}, TrainerSettings)
    bodies = MemoryBodies()
    client = WorkerClient(chosen, MANIFEST, PEER, directory, bodies)
    send, receive = trio.open_memory_channel[i.AnyInput](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run, send.send)
        yield Running(client, bodies, receive)
        nursery.cancel_scope.cancel()


def generate(groups: int = 8, round_number: int = 3) -> c.GenerateRollouts:
    return c.GenerateRollouts(round_number, 0, SEED, groups)


async def test_a_round_of_work(model: Path, tmp_path: Path) -> None:
    """Generate, train on own and external bodies, evaluate, save: each is answered, and the body passes a peer's
    check."""
    async with running(model, tmp_path) as node:
        ready = await node.ready()
        assert (ready.parameters, ready.checkpoint_round) == (345_216, -1)
        await node.client.execute(generate())
        made = await node.next(i.RolloutsGenerated)
        body = node.bodies.kept[made.body]
        assert len(decode_rollouts(body, made.body, len(body)).tokenizer) == 32
        said = Announcement(1, SEED, 3, 0, SEED, made.body, len(body), b"")
        verdict = check_body(MANIFEST, ArithmeticQuestions(), PEER, said, body)
        assert (verdict.reason, verdict.groups) == ("", 8)
        assert verdict.reward == pytest.approx(made.reward)
        await node.client.execute(c.TrainOnRollouts(3, 0, made.body, (made.body,), 2, 60.0))
        await node.client.execute(c.EvaluateModel(3))
        await node.client.execute(c.SaveCheckpoint(3))
        trained = await node.next(i.TrainingFinished)
        assert trained.updates == 2
        assert trained.own == trained.external
        measured = await node.next(i.EvaluationFinished)
        assert measured.questions == 40
        assert await node.next(i.CheckpointSaved) == i.CheckpointSaved(3)


async def test_cancel_is_quick(model: Path, tmp_path: Path) -> None:
    """Aborted work ends within 100 ms, and the child takes the next order."""
    async with running(model, tmp_path, slowdown=30.0) as node:
        await node.ready()
        await node.client.execute(generate())
        await trio.sleep(1.0)
        await node.gives_up(0.1)
        await node.client.execute(c.SaveCheckpoint(3))
        await node.next(i.CheckpointSaved)


async def test_sampling_is_cancelled_between_two_tokens(model: Path, tmp_path: Path) -> None:
    """Given up in the middle of a long generation, the child answers at once and takes the next order."""
    async with running(model, tmp_path) as node:
        await node.ready()
        await node.client.execute(generate(groups=1000))
        with trio.fail_after(30):
            while node.client.progress is None:  # noqa: ASYNC110 - the child says so by a frame
                await trio.sleep(0.01)
        await node.gives_up(0.5)
        await node.client.execute(generate())
        await node.next(i.RolloutsGenerated)


async def test_a_killed_child_comes_back_with_its_checkpoint(model: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of a task: the loss is reported, work meanwhile is refused, the next child resumes."""
    async with running(model, tmp_path, slowdown=30.0) as node:
        await node.ready()
        await node.client.execute(c.SaveCheckpoint(5))
        await node.next(i.CheckpointSaved)
        await node.client.execute(generate())
        await trio.sleep(0.3)
        os.kill(node.pid, signal.SIGKILL)
        assert await node.next(i.TrainerLost) == i.TrainerLost("somebody killed it")
        await node.client.execute(generate())
        assert await node.next(i.WorkFailed) == i.WorkFailed("generate", 3, 0, "trainer away", SEED)
        assert (await node.ready()).checkpoint_round == 5


async def test_nothing_is_left_behind(model: Path, tmp_path: Path) -> None:
    """The child ends with the client."""
    async with running(model, tmp_path) as node:
        await node.ready()
        pid = node.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    """Where the model can't be loaded the reason reaches the machine."""
    (tmp_path / "empty").mkdir()
    async with running(tmp_path / "empty", tmp_path) as node:
        lost = await node.next(i.TrainerLost)
        assert str(tmp_path / "empty") in lost.reason


async def test_a_hung_child_is_replaced(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that says nothing is killed, and a new one starts."""
    monkeypatch.setattr(link_module, "SILENCE_SECONDS", 2.0)
    async with running(model, tmp_path) as node:
        await node.ready()
        os.kill(node.pid, signal.SIGSTOP)
        lost = await node.next(i.TrainerLost)
        assert lost.reason == "it said nothing for 2 s"
        await node.ready()


@pytest.mark.parametrize("garbage", [b"\xff" * 64, b"\x04\0\0\0junk", b"\x01\0\0\0\xc0"])
async def test_garbage_ends_the_child(garbage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no frame costs the child its place, and the node goes on."""
    program = tmp_path / "program"
    code = f"import os, sys, time; os.write(int(sys.argv[3]), {garbage!r}); time.sleep(60)"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    async with running("", tmp_path) as node:
        lost = await node.next(i.TrainerLost)
        assert lost.reason.startswith("it wrote garbage")
