"""The systemd unit goes by the exit codes, and systemd understands it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from node.exits import MEANING, WORTH_A_RESTART, Exit
from tests.support.paths import ROOT

UNIT = ROOT / "configs" / "systemd" / "swarm@.service"


def settings() -> dict[str, str]:
    lines = (line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def test_the_unit_leaves_to_the_operator_what_a_restart_does_not_mend() -> None:
    """A full disk is no such thing; a code that is added has to be put in one of the two lists."""
    ends = {Exit.OK, Exit.INTERRUPTED}
    left = {int(code) for code in MEANING.keys() - WORTH_A_RESTART - ends}
    assert {int(code) for code in settings()["RestartPreventExitStatus"].split()} == left
    assert Exit.DISK_FULL in WORTH_A_RESTART
    assert settings()["StartLimitIntervalSec"] == "0"


def test_the_unit_takes_nothing_that_a_gpu_needs() -> None:
    """These settings hide the GPU's device files or forbid compiled kernels."""
    assert not settings().keys() & {"PrivateDevices", "DeviceAllow", "DevicePolicy", "ProtectClock",
                                    "MemoryDenyWriteExecute"}  # fmt: skip


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """No unknown setting, no value that is ignored; only the program's path is this test's."""
    unit = tmp_path / "swarm@0.service"
    unit.write_text(UNIT.read_text().replace("/opt/swarm/bin/swarm", shutil.which("true") or "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    about = [line for line in (ended.stdout + ended.stderr).splitlines() if "swarm@" in line]
    assert (ended.returncode, about) == (0, [])
