"""The orders that the child has: which answers count, and how long it may take to give up the others."""

from __future__ import annotations

from node.trainer.service.jobs import Job
from protocols.manifest import Manifest

CANCEL_SECONDS = 300.0
"""A child looks whether it was cancelled between two tokens, micro-batches or steps of vLLM. What takes longest in
between, some minutes, is vLLM's first start."""


class InFlightJobs:
    """Orders given and not answered. Those that were aborted are void: their answers are awaited and count for nothing,
    since the same round and stage may have been ordered anew by then.

    `patience` is how many seconds a child may take to answer an order that was aborted.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._jobs: dict[int, Job] = {}
        self._void: dict[int, float] = {}

    def give(self, order: Job) -> None:
        """Note an order that the child was given."""
        self._jobs[order.task] = order

    def abort(self, at: float) -> list[int]:
        """Void all orders at a time in seconds; return their tasks."""
        for task in self._jobs:
            self._void.setdefault(task, at + self.patience)
        return sorted(self._jobs)

    def answered(self, task: int) -> Job | None:
        """Return the order that the child answered, None where it is void. Raises KeyError where it has no such one."""
        order = self._jobs.pop(task)
        return order if self._void.pop(task, None) is None else None

    def is_overdue(self, at: float) -> bool:
        """Return True if the child should have given up an order before a time."""
        return any(until < at for until in self._void.values())


def patience(manifest: Manifest) -> float:
    """Return how many seconds a child may take to give up a task before it counts as hung.

    No fewer than the longest stage has: a slow machine is not killed for work that some stage has time for.
    """
    return max(CANCEL_SECONDS, *(stage.seconds for stage in manifest.stages))
