"""A disk of a few KiB: a tmpfs in mount and user namespaces of its own, for a process that fills it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def run_on_small_disk(disk: Path, kib: int, script: str) -> str:
    """Run a Python script, whose first argument is the directory of the disk; return what it prints.

    Skips the test where the system has no such namespaces.
    """
    disk.mkdir()
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mount and user namespaces here")
    mount = f'mount -t tmpfs -o size={kib}k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(disk), sys.executable, script]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
