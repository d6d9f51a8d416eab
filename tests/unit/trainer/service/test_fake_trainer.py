"""The fake trainer keeps what every trainer promises."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from node.data.arithmetic import ArithmeticQuestions
from tests.support.fake_trainer import FakeTrainer
from tests.support.trainer_expectations import MANIFEST, PEER, MemoryBodies, TrainerExpectations, TrainerUnderTest


class TestFakeTrainer(TrainerExpectations):
    """The shared expectations, of the fake."""

    @pytest.fixture
    def trainer(self, autojump_clock: MockClock) -> TrainerUnderTest:
        """Return a fake whose seconds are those of trio's clock."""
        bodies = MemoryBodies()
        return TrainerUnderTest(FakeTrainer(MANIFEST, PEER, ArithmeticQuestions(), bodies), bodies, 60.0)
