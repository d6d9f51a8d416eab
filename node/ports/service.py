"""What every supervised part of the node offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from node.machine.inputs import AnyInput

CommandT = TypeVar("CommandT", contravariant=True)

Report = Callable[[AnyInput], Awaitable[None]]
"""How a service tells the bus what happened. May wait when the source's queue is full and its policy is to block."""


class Service(Protocol[CommandT]):
    """One supervised part of the node. `run` ends only by cancellation or a fault; a fault restarts it."""

    name: str

    async def run(self, report: Report) -> None:
        """Work until cancelled. Raises whatever it can't handle: the supervisor logs it and restarts."""

    async def execute(self, command: CommandT) -> None:
        """Take a command over. Returns as soon as it is queued (or durably stored, for the chain); never raises
        because the other side is away."""
