"""What the node asks of the trainer."""

from __future__ import annotations

from typing import Protocol

from node.machine.commands import TrainerCommand
from node.ports.service import Service


class TrainerService(Service[TrainerCommand], Protocol):
    """The model and its training. State outlives a restart of `run`: it resumes from the newest checkpoint.

    It reports `TrainerReady` whenever it can take commands, and `TrainerLost` when it no longer can; what it was given
    is forgotten then. In between each command is answered once, in the order given: `GenerateRollouts` with
    `RolloutsGenerated` (the body is kept in `Bodies` by then), `TrainOnRollouts` with `TrainingFinished`,
    `EvaluateModel` with `EvaluationFinished`, `SaveCheckpoint` with `CheckpointSaved`; any of them with `WorkFailed`
    where nothing comes of it. After `AbortWork` nothing that was given before it is answered any more.
    """
