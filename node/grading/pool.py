"""A pool of worker processes that grade: no completion can cost this process more than a bounded wait."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import structlog

from node.child_process import child_environment
from node.grading.pool_messages import FrameT, Graded, GraderReady, GradingTask, PoolConnection

log = structlog.get_logger()

WORKERS = 2
SECONDS = 1.0
"""Wall-clock limit for one completion."""

MEBIBYTES = 512
"""Memory that grading a group may use above that of the loaded worker."""

LOADING_SECONDS = 60.0
SLACK_SECONDS = 5.0
"""How late a worker may be before it is replaced; its forks are killed long before that."""

TAIL = 4096
"""Characters at the end of a completion that are graded."""

Screen = Callable[[str, str], float | None]
"""Grades (completion, answer) at once if no third-party parser is needed, else returns None."""


class GraderLost(Exception):  # noqa: N818 - what happened to the worker
    """A worker can't be used any more."""


class GraderProcess:
    """One worker process. Methods block; one caller at a time."""

    def __init__(self, grader: str, seconds: float, mebibytes: int) -> None:
        ours, theirs = socket.socketpair()
        self._line = PoolConnection(ours)
        self._seconds = seconds
        self._ready = False
        with theirs:
            arguments = [str(theirs.fileno()), grader, str(seconds), str(mebibytes)]
            environment = child_environment(os.environ, (), OMP_NUM_THREADS="1")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "node.grading.worker", *arguments],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until the grader is loaded. Raises `GraderLost` with the reason if it can't be."""
        if not self._ready:
            reason = self._receive(GraderReady, LOADING_SECONDS).reason
            if reason:
                raise GraderLost(reason)
            self._ready = True

    def give(self, completions: Sequence[str], answer: str) -> None:
        """Send a task. Raises `GraderLost`."""
        self.wait()
        try:
            self._line.set_timeout(SLACK_SECONDS)
            self._line.send(GradingTask(tuple(completions), answer))
        except OSError as error:
            raise GraderLost(str(error)) from error

    def take(self, count: int) -> tuple[float | None, ...]:
        """Return the rewards of the task that was sent. Raises `GraderLost`."""
        rewards = self._receive(Graded, count * self._seconds + SLACK_SECONDS).rewards
        if len(rewards) != count:
            raise GraderLost(f"{len(rewards)} rewards for {count} completions")
        return rewards

    def _receive(self, kind: type[FrameT], seconds: float) -> FrameT:
        try:
            self._line.set_timeout(seconds)
            return self._line.receive(kind)
        except (OSError, EOFError, ValueError, RecursionError) as error:
            raise GraderLost(f"{type(error).__name__}: {error}") from error

    def end(self) -> None:
        """Kill the process and all its forks."""
        self._line.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class PooledGrader:
    """A `protocols.grading.GroupGrader` whose third-party code runs in `workers` processes.

    `gave_up` counts completions that exceeded a time or memory limit; their reward is 0.0. Raises ValueError if the
    grader can't be loaded.
    """

    def __init__(
        self, name: str, screen: Screen | None = None, *, workers: int = WORKERS, seconds: float = SECONDS,
        mebibytes: int = MEBIBYTES,
    ) -> None:  # fmt: skip
        self._name, self._screen, self._seconds, self._mebibytes = name, screen, seconds, mebibytes
        self._one_at_a_time = threading.Lock()
        self.gave_up = 0
        self._workers = [self._start() for _ in range(workers)]
        try:
            for worker in self._workers:
                worker.wait()
        except GraderLost as reason:
            self.close()
            raise ValueError(f"the grader {name} can't be loaded: {reason}") from reason

    def __call__(self, completion: str, answer: str) -> float:
        """Return the reward of one completion."""
        return self.many([completion], answer)[0]

    def many(self, completions: Sequence[str], answer: str) -> list[float]:
        """Return the rewards of a group; blocks for about `seconds` per completion at most."""
        tails = [completion[-TAIL:] for completion in completions]
        rewards = {at: self._screen(tail, answer) if self._screen else None for at, tail in enumerate(tails)}
        left = [at for at, reward in rewards.items() if reward is None]
        if left:
            with self._one_at_a_time:
                rewards |= dict(zip(left, self._pooled([tails[at] for at in left], answer), strict=True))
        return [reward or 0.0 for reward in rewards.values()]

    def _pooled(self, completions: Sequence[str], answer: str) -> list[float]:
        """Split a group among the workers and collect the rewards."""
        shares = [completions[at :: len(self._workers)] for at in range(len(self._workers))]
        given = [self._given(at, share, answer) for at, share in enumerate(shares)]
        taken = [self._taken(at, len(share)) if there else [None] * len(share)
                 for at, (share, there) in enumerate(zip(shares, given, strict=True))]  # fmt: skip
        rewards: list[float] = [0.0] * len(completions)
        for at, share in enumerate(taken):
            self.gave_up += sum(reward is None for reward in share)
            rewards[at :: len(self._workers)] = [reward or 0.0 for reward in share]
        return rewards

    def _given(self, at: int, share: Sequence[str], answer: str) -> bool:
        if not share:
            return True
        try:
            self._workers[at].give(share, answer)
        except GraderLost as reason:
            self._replace(at, reason)
            return False
        return True

    def _taken(self, at: int, count: int) -> Sequence[float | None]:
        if not count:
            return []
        try:
            return self._workers[at].take(count)
        except GraderLost as reason:
            self._replace(at, reason)
            return [None] * count

    def _replace(self, at: int, reason: GraderLost) -> None:
        log.warning("grading.worker_lost", grader=self._name, reason=str(reason))
        self._workers[at].end()
        self._workers[at] = self._start()

    def _start(self) -> GraderProcess:
        return GraderProcess(self._name, self._seconds, self._mebibytes)

    def close(self) -> None:
        """Kill the workers."""
        for worker in self._workers:
            worker.end()
