"""What processes use while they are attacked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import trio

from tests.redteam.arena import cpu_seconds, resident

LOOK_SECONDS = 0.2


class Usage(msgspec.Struct, frozen=True):
    """The largest resident memory in bytes and number of descriptors, and the share of a core, of any process."""

    memory: int
    descriptors: int
    cpu: float


class Meter:
    """Looks at processes again and again."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._memory = self._descriptors = 0
        self._began = time.monotonic()
        self._used = [cpu_seconds(pid) for pid in pids]

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._memory = max(self._memory, *(resident(pid) for pid in self._pids))
            self._descriptors = max(self._descriptors, *(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._pids))
            await trio.sleep(LOOK_SECONDS)

    def usage(self) -> Usage:
        """Return what was used since the meter was made."""
        took = time.monotonic() - self._began
        shares = [(cpu_seconds(pid) - used) / took for pid, used in zip(self._pids, self._used, strict=True)]
        return Usage(self._memory, self._descriptors, max(shares))


def memory_now(pids: list[int]) -> int:
    """Return the largest resident memory of any process, in bytes."""
    return max(resident(pid) for pid in pids)


def lines_with(paths: list[Path], *words: str) -> list[str]:
    """Return the lines of log files that hold all the words."""
    return [line for path in paths for line in path.read_text().splitlines() if all(word in line for word in words)]
