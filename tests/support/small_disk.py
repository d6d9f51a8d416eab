"""A disk of a few KiB: a tmpfs in mount and user namespaces of its own, for a process that fills it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MOUNT = 'mount -t tmpfs -o size="$1"k tmpfs "$2" && shift 2 && exec "$@"'


def on_small_disk(disk: Path, kib: int, *command: str) -> list[str]:
    """Return the command that runs another one, which alone sees a small disk at an empty directory.

    Skips the test where the system has no such namespaces.
    """
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mount and user namespaces here")
    return ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(kib), str(disk), *command]


def run_on_small_disk(disk: Path, kib: int, script: str) -> str:
    """Run a Python script, whose first argument is the directory of the disk; return what it prints."""
    disk.mkdir()
    command = on_small_disk(disk, kib, sys.executable, "-c", script, str(disk))
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
