"""The trainer: sampling against transformers' generate; whole updates against TRL where an environment has it.

`SWARM_TRL_VENV` names the environment that `python -m tools.bench_trl --venv DIR` made; without it TRL is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SECONDS = 3600


def run() -> list[dict[str, Any]]:
    """Return the rows. A process of its own measures: threads are set before torch is imported."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "figures.json"
        venv = os.environ.get("SWARM_TRL_VENV", "")
        command = [sys.executable, "-m", "tools.bench_trl", "--json", str(path)]
        command += ["--venv", venv] if venv else ["--case", "generate"]
        # Ends with 1 where a goal is missed: the rows say which.
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False, timeout=SECONDS)
        return rows_of(json.loads(path.read_bytes()))


def rows_of(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of what `tools.bench_trl` wrote."""
    from tools.bench_trl.cases import CASES
    from tools.bench_trl.report import GENERATION_TIMES

    generate = figures["generate"]
    times = generate["ours"] / generate["generate"]
    rows = [
        row("built-in model: sampling", generate["ours"], "tokens/s", None),
        row("built-in model: sampling, transformers' generate", generate["generate"], "tokens/s", None),
        row("built-in model: sampling, faster than generate", times, "times", GENERATION_TIMES),
        row("built-in model: sampling, share of the core's fp32 peak", 100 * generate["share"], "%", None),
    ]
    for name, case in CASES.items():
        for match in figures.get(name, ()):
            ours, theirs = match["ours"], match["trl"]
            label = f"{case.title}, seed {match['seed']}: update"
            rows.append(row(f"{label}", ours["seconds"], "s", None))
            rows.append(row(f"{label}, faster than TRL's", theirs["seconds"] / ours["seconds"], "times", case.times))
            rows.append(row(f"{label}, peak memory against TRL's", theirs["peak"] / ours["peak"], "times less", 1.0))
    return rows


def row(name: str, value: float, unit: str, goal: float | None) -> dict[str, Any]:
    """Return one line of the bench's table; a goal is the least that is meant."""
    return {"name": name, "value": value, "unit": unit, "goal": goal, "met": None if goal is None else value >= goal}
