"""What the node asks of the trainer."""

from __future__ import annotations

from node.machine.commands import TrainerCommand
from node.ports.service import Service

TrainerService = Service[TrainerCommand]
