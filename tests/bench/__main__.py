"""`make bench`: every benchmark, as a table on the terminal and as `bench.json`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

BENCHES = (
    "bench_machine",
    "bench_growth",
    "bench_verify",
    "bench_data",
    "bench_chain",
    "bench_idle",
    "bench_gossip",
    "bench_trainer",
)


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; return 1 where a goal is missed."""
    rows: list[dict[str, Any]] = []
    for name in names or BENCHES:
        rows += importlib.import_module(f"tests.bench.{name}").run()
    Path("bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2))
    table = Table("measure", "value", "unit", "goal", "met")
    for row in rows:
        met = {True: "yes", False: "no", None: ""}[row["met"]]
        table.add_row(row["name"], f"{row['value']:,.4g}", row["unit"], str(row["goal"] or ""), met)
    Console().print(table)
    return int(any(row["met"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
