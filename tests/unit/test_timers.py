"""Timers of the machine."""

import trio
from trio.testing import MockClock

from node.machine.commands import CancelTimer, SetTimer
from node.timers import Timers


async def test_timers_fire_in_order_once_and_not_when_cancelled(autojump_clock: MockClock) -> None:
    """Of four timers, one replaced and one cancelled, three fire, each at its time."""
    fired: list[tuple[float, str]] = []
    timers = Timers(trio.current_time)
    start = trio.current_time()

    async def report(happened: object) -> None:
        fired.append((round(trio.current_time() - start), happened.name))  # type: ignore[attr-defined]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run, report)
        for name, after in (("late", 50), ("early", 10), ("moved", 5), ("gone", 20)):
            await timers.execute(SetTimer(name, start + after))
        await timers.execute(SetTimer("moved", start + 30))
        await timers.execute(CancelTimer("gone"))
        await trio.sleep(100)
        nursery.cancel_scope.cancel()

    assert fired == [(10, "early"), (30, "moved"), (50, "late")]
