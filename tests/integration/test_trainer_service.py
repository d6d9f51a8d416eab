"""The real trainer, with a child process, keeps what every trainer promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.config import TrainerSettings
from node.trainer.engines.builtin.sft_warmup import build_builtin_model
from node.trainer.service.worker_client import WorkerClient
from tests.support.trainer_expectations import MANIFEST, PEER, MemoryBodies, TrainerExpectations, TrainerUnderTest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "builtin"
    build_builtin_model(directory, 0, steps=2)
    return directory


class TestWorkerClient(TrainerExpectations):
    """The shared expectations, of the built-in model in a child."""

    @pytest.fixture
    def trainer(self, model: Path, tmp_path: Path) -> TrainerUnderTest:
        """Return a worker client; each time that it runs, it starts a child."""
        bodies, settings = MemoryBodies(), TrainerSettings(model=str(model))
        return TrainerUnderTest(WorkerClient(settings, MANIFEST, PEER, tmp_path / "trainer", bodies), bodies, 90.0)
