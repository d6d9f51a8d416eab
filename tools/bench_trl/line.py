"""How a contestant hears and speaks: JSON lines on stdin and stdout; what libraries print goes to stderr."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from tools.bench_trl.cases import BenchJob, Done, Turn

GO = "go\n"


class JsonLines:
    """The contestant's side."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.job = msgspec.json.decode(sys.stdin.readline(), type=BenchJob)

    def wait(self) -> None:
        """Wait for this contestant's turn. Ends the process where the other side is gone."""
        if sys.stdin.readline() != GO:
            sys.exit(1)

    def send(self, message: Turn | Done) -> None:
        """Send a line."""
        self._out.write(msgspec.json.encode(message).decode() + "\n")
        self._out.flush()


def peak_bytes() -> int:
    """Return this process's highest resident memory so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
