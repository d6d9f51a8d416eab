import os
import sys
import time
from pathlib import Path

from node.localnet.processes import ManagedProcess, end_all, memory_of, process_tree

FAMILY = (
    "import subprocess, sys, time;"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True);"
    "print(p.pid, flush=True); time.sleep(60)"
)


def test_grandchildren_in_other_groups_end_too(tmp_path: Path) -> None:
    """A trainer that its node put into a session of its own does not outlive the demo."""
    child = ManagedProcess("family", [sys.executable, "-c", FAMILY], tmp_path / "log")
    deadline = time.monotonic() + 20
    while not (text := child.log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.01)
    grandchild = int(text)
    assert process_tree(child.pid) == {child.pid, grandchild}
    end_all([child])
    assert process_tree(child.pid) == process_tree(grandchild) == set()


def test_a_process_that_will_not_listen_is_killed(tmp_path: Path) -> None:
    """SIGTERM may be ignored, the end may not."""
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    child = ManagedProcess("stubborn", [sys.executable, "-c", stubborn], tmp_path / "log")
    while child.exit_code is None and child.log.read_text() != "up\n":
        time.sleep(0.01)
    end_all([child], seconds=0.1)
    assert child.exit_code is not None
    assert child.last_words() == "up"


def test_memory_counts_living_processes_only() -> None:
    """This process takes some, one that does not exist none."""
    assert memory_of([os.getpid()]) > 2**20
    assert memory_of([2**22 + 1]) == 0
