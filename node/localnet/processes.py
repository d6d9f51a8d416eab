"""Child processes of the demo: each in its own process group, none outlives the demo, memory is measured."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from node.child_process import COMPUTE, DOWNLOAD, child_environment, end_with

PASSED = (*COMPUTE, *DOWNLOAD, "HF_TOKEN_PATH")
"""What the demo's processes get of the environment: none of the operator's own settings, none of its secrets."""

TERM_SECONDS = 8.0
"""How long a child may take to stop."""
KILL_SECONDS = 2.0
"""How long the kernel may take to end a killed process."""


class DemoError(RuntimeError):
    """The demo can't continue; the text is the operator's one-line error."""


class ManagedProcess:
    """One process with the group that it leads. Output goes to a file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] = {}) -> None:
        self.name, self.log = name, log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=child_environment(os.environ, PASSED, **environment),
                start_new_session=True,
                preexec_fn=partial(end_with, os.getpid()),
            )

    @property
    def pid(self) -> int:
        """The process id, which is also the group's."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Signal the process itself, if it still runs."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, None if it still runs after `seconds`."""
        try:
            return self._process.wait(timeout=max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return None

    def kill_group(self) -> None:
        """Kill whatever is left of the group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    def last_words(self) -> str:
        """Return the last non-empty line of the log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][-400:] if lines else "it wrote nothing"


def end_all(children: Iterable[ManagedProcess], seconds: float = TERM_SECONDS) -> None:
    """Stop children gracefully, then kill them, all processes of their groups and all descendants."""
    everyone = list(children)
    descendants = {pid for child in everyone for pid in process_tree(child.pid)}
    for child in everyone:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    for child in everyone:
        child.wait(deadline - time.monotonic())
    for child in everyone:
        child.kill_group()
    for pid in descendants & set(_parents()):
        _kill(pid)
    deadline = time.monotonic() + KILL_SECONDS
    while descendants & set(_parents()) and time.monotonic() < deadline:  # a signal is not yet an end
        time.sleep(0.01)


def process_tree(root: int) -> set[int]:
    """Return a process and all its descendants; empty if it is gone or the system has no /proc."""
    parents = _parents()
    tree = {root} & set(parents)
    grown = tree
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown} - tree
        tree = tree | grown
    return tree


def memory_of(pids: Iterable[int]) -> int:
    """Return the memory of processes together in bytes, shared pages counted once (PSS); 0 without /proc."""
    return sum(_memory(pid) for pid in pids)


def _parents() -> dict[int, int]:
    """Return the parent of every live process, without zombies."""
    found = {}
    proc = Path("/proc")
    for name in os.listdir(proc) if proc.is_dir() else []:
        if not name.isdigit():
            continue
        try:
            state, parent = (proc / name / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            found[int(name)] = int(parent)
    return found


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
