"""Linux only: what loading a large data set costs, one as large as DAPO-Math-17K, made here."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from node.data.arithmetic import Draws

QUESTIONS = 17_398
MOST_SECONDS, MOST_MEBIBYTES = 5.0, 256
LOAD = """
import re, sys, time
from pathlib import Path
from node.data.load import load_questions
from protocols.manifest import DataSpec
import pyarrow.parquet

peak = lambda: int(re.search("VmHWM: *\t *([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024
spec = DataSpec(source="jsonl:x", question="prompt", answer="reward_model.ground_truth")
before, began = peak(), time.perf_counter()
load_questions(spec, sys.argv[1], "math/1")
print(time.perf_counter() - began, peak() - before)
"""


def run() -> list[dict[str, Any]]:
    """Return the rows: seconds and MiB above the imports, for JSON lines and for Parquet."""
    return [row for name, write in (("JSON lines", _json_lines), ("Parquet", _parquet)) for row in _rows(name, write)]


def _rows(name: str, write: Callable[[Path], Path]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory))
        command = [sys.executable, "-c", LOAD, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, mebibytes = map(float, done.stdout.split())
    what = f"{QUESTIONS:,} questions from {name}"
    yield {"name": f"load {what}", "value": seconds, "unit": "s", "goal": MOST_SECONDS, "met": seconds <= MOST_SECONDS}
    yield {
        "name": f"memory of {what}", "value": mebibytes, "unit": "MiB", "goal": MOST_MEBIBYTES,
        "met": mebibytes <= MOST_MEBIBYTES,
    }  # fmt: skip


def _records() -> Iterator[dict[str, Any]]:
    draws = Draws("bench/data")
    for number in range(QUESTIONS):
        words = " ".join(f"{draws.below(10_000):x}" for _ in range(draws.between(20, 180)))
        yield {
            "prompt": [{"role": "user", "content": f"{number}: {words}"}],
            "reward_model": {"style": "rule", "ground_truth": str(draws.below(1000))},
            "source_prompt": words,
        }


def _json_lines(directory: Path) -> Path:
    path = directory / "train.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in _records())
    return path


def _parquet(directory: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    path = directory / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(_records())), path)
    return path
