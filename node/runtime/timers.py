"""Timers of the machine: the only place that waits for a point in time on its behalf."""

from __future__ import annotations

from collections.abc import Callable

import trio

from node.machine.commands import SetTimer
from node.machine.inputs import TimerFired
from node.ports.service import Report


class Timers:
    """Reports `TimerFired` when a timer comes due. `now` is the clock in Unix seconds, injected for tests."""

    name = "timers"

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due: dict[str, float] = {}
        self._changed = trio.Event()

    async def execute(self, command: SetTimer) -> None:
        """Set or replace a timer."""
        self._due[command.name] = command.at
        self._changed.set()
        await trio.lowlevel.checkpoint()

    async def run(self, report: Report) -> None:
        """Fire timers in the order of their times until cancelled."""
        while True:
            await self._wait()
            for name in self._take_due():
                await report(TimerFired(name))

    async def _wait(self) -> None:
        self._changed = trio.Event()
        soonest = min(self._due.values(), default=None)
        wait = float("inf") if soonest is None else max(0.0, soonest - self._now())
        with trio.move_on_after(wait):
            await self._changed.wait()

    def _take_due(self) -> list[str]:
        now = self._now()
        due = sorted((at, name) for name, at in self._due.items() if at <= now)
        for _, name in due:
            del self._due[name]
        return [name for _, name in due]
