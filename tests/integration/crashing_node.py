"""A real node, but for its trainer, that kills itself (SIGKILL) before or after carrying out a command.

`python -m tests.integration.crashing_node DATA_DIR`. The file DATA_DIR/crash holds "before COMMAND" or "after
COMMAND"; while it is missing the node just runs. DATA_DIR/skill holds the share of right answers, if not a quarter.
Chain, gossip, journal, outbox and vote protection are the real ones.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import node.app.node as app
from node.app.preflight import open_questions
from node.config import load_config
from node.machine.commands import AnyCommand
from node.ports.trainer import TrainerService
from protocols.identifiers import Address
from tests.support.fake_trainer import FakeSpeed, FakeTrainer

LOAD_SECONDS = 0.2


class CrashingNode(app.Node):
    """A node that dies where it is told to."""

    def trainer_of(self, peer: Address) -> TrainerService:
        """Return a trainer that makes its rollouts up."""
        speed = FakeSpeed(load=LOAD_SECONDS, group=self.config.trainer.slowdown, update=0.1, evaluation=0.1, save=0.1)
        questions = open_questions(self.manifest, self.config)
        skill = self.home / "skill"
        return FakeTrainer(
            self.manifest, peer, questions, self.bodies, speed=speed,
            skill=float(skill.read_text()) if skill.exists() else 0.25,
        )  # fmt: skip

    async def dispatch(self, command: AnyCommand) -> None:
        """Carry a command out, unless the node is to die of it."""
        self._die_if(f"before {type(command).__name__}")
        await super().dispatch(command)
        self._die_if(f"after {type(command).__name__}")

    def _die_if(self, here: str) -> None:
        crash = self.home / "crash"
        if crash.exists() and crash.read_text() == here:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    home = Path(sys.argv[1])
    app.Node = CrashingNode  # type: ignore[misc]
    sys.exit(app.run_node(load_config(home, {}, {}), home))
