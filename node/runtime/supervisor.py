"""Supervision: a service that fails is restarted with back-off; the others go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
import trio

from node.backoff import Backoff
from node.errors import describe
from node.machine.inputs import AnyInput
from node.ports.service import Report, Service

log = structlog.get_logger()

RESTART = Backoff(first=0.5, longest=30.0, steady=60.0)
"""Before a service that failed is started again."""


async def supervise(service: Service[Any], report: Report, fault: Callable[[str], AnyInput | None]) -> None:
    """Run a service until cancelled. After a fault, `fault(reason)` says which input tells the machine, if any."""
    failures = 0
    while True:
        began = trio.current_time()
        try:
            await service.run(report)
            reason = "ended by itself"
        except Exception as error:  # noqa: BLE001 - the task boundary: whatever a service could not handle ends here
            reason = describe(error)
        failures = RESTART.count(failures, trio.current_time() - began)
        pause = RESTART.pause(failures)
        log.warning("service.failed", service=service.name, reason=reason, restart_in=pause)
        lost = fault(reason)
        if lost is not None:
            await report(lost)
        await trio.sleep(pause)
