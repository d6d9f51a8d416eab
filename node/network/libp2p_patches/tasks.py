"""Tasks of the library that fail alone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger("libp2p.swarm")


def isolated(work: Callable[..., Awaitable[Any]], level: int = logging.WARNING) -> Callable[..., Awaitable[bool]]:
    """Return `work` with its exceptions logged instead of raised; awaiting it gives True if there was none."""

    async def run(*arguments: Any) -> bool:
        try:
            await work(*arguments)
        except Exception as error:  # noqa: BLE001 - task boundary: the library runs this for one peer
            log.log(level, "%s failed: %r", getattr(work, "__name__", work), error)
            return False
        return True

    return run


def isolate_tasks(manager: Any) -> None:
    """Make a service's manager start every task isolated: the library ends a whole service with any of its tasks."""
    start = manager.run_task

    def run_task(work: Callable[..., Awaitable[None]], *arguments: Any, **options: Any) -> None:
        start(isolated(work), *arguments, **options)

    manager.run_task = run_task
