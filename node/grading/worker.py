"""A pool's worker: `python -m node.grading.worker FD GRADER SECONDS MEBIBYTES`, started by `node.grading.pool` only.

It loads the grader once and grades every task in a fork of itself, so that a fresh process costs milliseconds. The
fork has its own limits on memory and CPU time and is killed when a completion takes longer than `SECONDS`; the next
completion gets another fork. The worker ends when the pool does.
"""

from __future__ import annotations

import math
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from node.grading.pool_messages import Graded, GraderReady, GradingTask, PoolConnection
from node.grading.registry import foreign_grader
from protocols.grading import Grader

DEPTH = 2000
"""Recursion limit of a grader: deep nesting ends in RecursionError, not in a stack overflow."""

_value = struct.Struct("<d")


class GradingBounds(msgspec.Struct, frozen=True):
    """Limits per completion: wall-clock seconds, and bytes of address space above the worker's own."""

    seconds: float
    memory: int


def main(descriptor: int, name: str, bounds: GradingBounds) -> None:
    """Serve tasks until the pool closes its end."""
    connection = PoolConnection(socket.socket(fileno=descriptor))
    sys.setrecursionlimit(DEPTH)
    try:
        grade = foreign_grader(name)
    except (ValueError, ImportError) as error:
        connection.send(GraderReady(str(error)))
        return
    connection.send(GraderReady())
    try:
        while True:
            task = connection.receive(GradingTask)
            connection.send(Graded(tuple(graded(grade, task, bounds))))
    except (EOFError, OSError):
        return


def graded(grade: Grader, task: GradingTask, bounds: GradingBounds) -> list[float | None]:
    """Return the reward of each completion, None for those that exceeded a limit."""
    rewards: list[float | None] = []
    while len(rewards) < len(task.completions):
        rewards += _in_fork(grade, task.completions[len(rewards) :], task.answer, bounds)
    return rewards


def _in_fork(grade: Grader, completions: Sequence[str], answer: str, bounds: GradingBounds) -> list[float | None]:
    """Return rewards until all are known or one exceeded a limit; that one is None and the last."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _grade_all(grade, completions, answer, bounds, writing)
    os.close(writing)
    rewards: list[float | None] = []
    try:
        while len(rewards) < len(completions) and None not in rewards:
            rewards.append(_next_reward(reading, bounds.seconds))
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return rewards


def _next_reward(reading: int, seconds: float) -> float | None:
    if not select.select([reading], [], [], seconds)[0]:
        return None
    data = os.read(reading, _value.size)
    return float(_value.unpack(data)[0]) if len(data) == _value.size else None


def _grade_all(grade: Grader, completions: Sequence[str], answer: str, bounds: GradingBounds, writing: int) -> None:
    """Run in the fork: write one reward after the other and exit. If a grader raises, the completion is wrong."""
    try:
        confine(bounds, len(completions))
        for completion in completions:
            try:
                reward = float(grade(completion, answer))
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - task boundary: a third-party parser may raise anything on hostile text
                reward = 0.0
            os.write(writing, _value.pack(reward))
    finally:
        os._exit(0)


def confine(bounds: GradingBounds, completions: int) -> None:
    """Lower this process's limits for good: memory, CPU time, no core dump, no growing file."""
    cpu = math.ceil(bounds.seconds * completions) + 1
    memory = _address_space() + bounds.memory
    for kind, limit in (
        (resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0),
    ):  # fmt: skip
        _, most = resource.getrlimit(kind)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(kind, (limit, limit))


def _address_space() -> int:
    """Return the bytes of address space of this process; 1 GiB on systems without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], GradingBounds(float(sys.argv[3]), int(sys.argv[4]) << 20))
