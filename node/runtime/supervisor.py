"""Supervision: a service that fails is restarted with back-off; the others go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
import trio

from node.errors import describe
from node.machine.inputs import AnyInput
from node.ports import Report, Service

log = structlog.get_logger()

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY = 60.0
"""Seconds: the first pause after a fault, the longest one, and the time without a fault that resets the pause."""


def next_pause(pause: float, lasted: float) -> float:
    """Return the pause before the next start, given the last pause and how long the service had run, in seconds."""
    if not pause or lasted >= STEADY:
        return FIRST_PAUSE
    return min(pause * 2, LONGEST_PAUSE)


async def supervise(service: Service[Any], report: Report, fault: Callable[[str], AnyInput | None]) -> None:
    """Run a service until cancelled. After a fault, `fault(reason)` says which input tells the machine, if any."""
    pause = 0.0
    while True:
        began = trio.current_time()
        try:
            await service.run(report)
            reason = "ended by itself"
        except Exception as error:  # noqa: BLE001 - the task boundary: whatever a service could not handle ends here
            reason = describe(error)
        pause = next_pause(pause, trio.current_time() - began)
        log.warning("service.failed", service=service.name, reason=reason, restart_in=pause)
        lost = fault(reason)
        if lost is not None:
            await report(lost)
        await trio.sleep(pause)
