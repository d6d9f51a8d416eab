"""Supervision of services."""

import trio
from trio.testing import MockClock

from node.errors import describe
from node.machine.inputs import ChainLost
from node.runtime.supervisor import RESTART, supervise


class Failing:
    """A service that fails a few times, then works."""

    name = "failing"

    def __init__(self, faults: int) -> None:
        self.faults = faults
        self.starts: list[float] = []

    async def run(self, report: object) -> None:
        self.starts.append(trio.current_time())
        if len(self.starts) <= self.faults:
            raise OSError("away")
        await trio.sleep_forever()

    async def execute(self, command: object) -> None:
        raise NotImplementedError


async def test_a_failing_service_is_restarted_with_growing_pauses(autojump_clock: MockClock) -> None:
    """Three faults: three reports, pauses that double, then it runs."""
    service, heard = Failing(3), []

    async def report(happened: object) -> None:
        heard.append(happened)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, service, report, ChainLost)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    gaps = [round(after - before, 3) for before, after in zip(service.starts, service.starts[1:], strict=False)]
    assert gaps == [0.5, 1.0, 2.0]
    assert [ChainLost("OSError: away")] * 3 == heard


def test_the_pause_is_bounded_and_forgotten_after_steady_work() -> None:
    """A service that ran well for a while starts from the first pause again."""
    assert RESTART.pause(RESTART.count(20, 59.9)) == 30.0
    assert RESTART.pause(RESTART.count(20, 60.0)) == 0.5


def test_an_error_is_told_in_one_line() -> None:
    """Groups are opened, line ends are folded, length is bounded."""
    error = ExceptionGroup("many", [ExceptionGroup("more", [ValueError("a\nb" + "c" * 500)])])

    assert describe(error).startswith("ValueError: a bccc")
    assert len(describe(error)) == 300
