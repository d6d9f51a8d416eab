"""The real trainer, with a child process, keeps what every trainer promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from node.config import TrainerSettings
from node.machine.inputs import AnyInput
from node.ports.trainer import TrainerService
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.service.worker_client import WorkerClient
from tests.support.trainer_expectations import MANIFEST, PEER, InputT, MemoryBodies, TrainerExpectations

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "builtin"
    build_builtin_model(directory, 0, steps=2)
    return directory


class WorkerUnderTest:
    """A worker client; each time that it runs, it starts a child."""

    def __init__(self, model: Path, directory: Path) -> None:
        self.bodies = MemoryBodies()
        settings = TrainerSettings(model=str(model))
        self.service: TrainerService = WorkerClient(settings, MANIFEST, PEER, directory, self.bodies)
        self._send, self._reports = trio.open_memory_channel[AnyInput](100)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.service.run, self._send.send)
            yield
            nursery.cancel_scope.cancel()

    async def next(self, kind: type[InputT]) -> InputT:
        with trio.fail_after(90):
            found = await self._reports.receive()
        assert isinstance(found, kind), found
        return found


class TestWorkerClient(TrainerExpectations):
    """The shared expectations, of the built-in model in a child."""

    @pytest.fixture
    def trainer(self, model: Path, tmp_path: Path) -> WorkerUnderTest:
        return WorkerUnderTest(model, tmp_path / "trainer")
