"""Memory of a node's own process in a running swarm: the trainer, a process of its own, is not counted."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from node.localnet.demo_plan import DemoOptions, demo_plan
from node.localnet.local_swarm import LocalSwarm
from node.localnet.processes import process_tree

ROUND, LIMIT_SECONDS = 6, 120.0
GOAL = 150.0


def run() -> list[dict[str, Any]]:
    """Return the rows: resident MiB of a node that has played some rounds, and of its trainer."""
    plan = demo_plan(DemoOptions(peers=2, rounds=ROUND, warmup_steps=20))
    with tempfile.TemporaryDirectory() as home, LocalSwarm(plan, Path(home)) as network:
        network.start(lambda _: None)
        limit = time.monotonic() + LIMIT_SECONDS
        while network.look().round < ROUND and time.monotonic() < limit:
            time.sleep(0.5)
        sizes = [[resident(pid) for pid in sorted(process_tree(pid))] for pid in network.node_pids]
    node = max(each[0] for each in sizes)
    return [
        _row("node without trainer, resident", node, GOAL),
        _row("trainer of the built-in model, resident", max(max(each[1:]) for each in sizes), None),
    ]


def _row(name: str, value: float, goal: float | None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "MiB", "goal": goal and f"< {goal:g}", "met": goal and value < goal}


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
