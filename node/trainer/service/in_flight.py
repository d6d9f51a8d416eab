"""The jobs that the child has: which answers count, and how long it may take to give up the others."""

from __future__ import annotations

from node.trainer.service.jobs import Job
from protocols.manifest import Manifest

CANCEL_SECONDS = 300.0
"""A child looks whether it was cancelled between two tokens, micro-batches or steps of vLLM. What takes longest in
between, some minutes, is vLLM's first start."""


class InFlightJobs:
    """Jobs given and not answered. Answers to aborted ones are awaited and count for nothing: the same round and stage
    may have been asked for again by then.

    `timeout` is how many seconds a child may take to answer a job that was aborted.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._jobs: dict[int, Job] = {}
        self._aborted: dict[int, float] = {}

    def add(self, job: Job) -> None:
        """Note a job that the child was given."""
        self._jobs[job.task] = job

    def abort(self, at: float) -> list[int]:
        """Abort all jobs at a time in seconds; return their tasks."""
        for task in self._jobs:
            self._aborted.setdefault(task, at + self.timeout)
        return sorted(self._jobs)

    def answered(self, task: int) -> Job | None:
        """Return the job that the child answered, None if it was aborted. Raises KeyError for one it was not given."""
        job = self._jobs.pop(task)
        return job if self._aborted.pop(task, None) is None else None

    def is_overdue(self, at: float) -> bool:
        """Return True if the child should have given up an aborted job by that time."""
        return any(until < at for until in self._aborted.values())


def cancel_timeout(manifest: Manifest) -> float:
    """Return how many seconds a child may take to give up a task before it counts as hung.

    No fewer than the longest stage has: a slow machine is not killed for work that some stage has time for.
    """
    return max(CANCEL_SECONDS, *(stage.seconds for stage in manifest.stages))
