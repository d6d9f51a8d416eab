"""Timers of the machine."""

import trio
from trio.testing import MockClock

from node.machine.commands import SetTimer
from node.runtime.timers import Timers


async def test_timers_fire_in_order_and_once(autojump_clock: MockClock) -> None:
    """Of three timers, one of them replaced, each fires at its last time."""
    fired: list[tuple[float, str]] = []
    timers = Timers(trio.current_time)
    start = trio.current_time()

    async def report(happened: object) -> None:
        fired.append((round(trio.current_time() - start), happened.name))  # type: ignore[attr-defined]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run, report)
        for name, after in (("late", 50), ("early", 10), ("moved", 5)):
            await timers.execute(SetTimer(name, start + after))
        await timers.execute(SetTimer("moved", start + 30))
        await trio.sleep(100)
        nursery.cancel_scope.cancel()

    assert fired == [(10, "early"), (30, "moved"), (50, "late")]
