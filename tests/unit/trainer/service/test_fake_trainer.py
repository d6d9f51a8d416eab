"""The fake trainer keeps what every trainer promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from node.data.arithmetic import ArithmeticQuestions
from node.machine.inputs import AnyInput
from node.ports.trainer import TrainerService
from tests.support.fake_trainer import FakeTrainer
from tests.support.trainer_expectations import MANIFEST, PEER, InputT, MemoryBodies, TrainerExpectations


class FakeTrainerUnderTest:
    """A fake whose seconds are those of trio's clock."""

    def __init__(self) -> None:
        self.bodies = MemoryBodies()
        self.service: TrainerService = FakeTrainer(MANIFEST, PEER, ArithmeticQuestions(), self.bodies)
        self._send, self._reports = trio.open_memory_channel[AnyInput](100)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.service.run, self._send.send)
            yield
            nursery.cancel_scope.cancel()

    async def next(self, kind: type[InputT]) -> InputT:
        with trio.fail_after(60):
            found = await self._reports.receive()
        assert isinstance(found, kind), found
        return found


class TestFakeTrainer(TrainerExpectations):
    """The shared expectations, of the fake."""

    @pytest.fixture
    def trainer(self, autojump_clock: MockClock) -> FakeTrainerUnderTest:
        return FakeTrainerUnderTest()
