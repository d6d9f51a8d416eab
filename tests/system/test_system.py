"""Swarms over a wide-area network of namespaces: delay, loss, NATs, partitions. `make test-system` plays all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.system.namespaces import INSIDE, why_not
from tests.system.scenario import SCENARIOS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces here: {why_not()}"),
]

SHORT = "far nats"
"""What `make test` plays: 100 ms each way, 2 % loss, two nodes behind NATs of their own."""


def play(name: str) -> None:
    """Play a scenario in namespaces of its own; fail with what it says."""
    command = [*INSIDE, sys.executable, "-m", "tests.system.scenario", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]


@pytest.mark.swarm
def test_everybody_hears_everybody_over_long_lossy_lines_and_from_behind_nats() -> None:
    """Each node's rollouts reach all others in every round, and all votes are on chain."""
    play(SHORT)


@pytest.mark.system
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != SHORT])
def test_a_swarm_holds_together(name: str) -> None:
    """As above; and after a partition of two rounds one stage is enough to heal."""
    play(name)
