"""Show what the tests covered of the pure packages, and fail below a floor: `python -m tools.coverage_floor FILE`.

FILE is what `coverage json` writes. Only branches have a floor: they are the decisions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

FLOORS = {"protocols": 97.0, "node/machine": 97.0}
"""Percent of the branches of a package that tests take at least."""


class FileSummary(msgspec.Struct, frozen=True):
    """What coverage counted in a file."""

    num_statements: int
    covered_lines: int
    num_branches: int
    covered_branches: int


class MeasuredFile(msgspec.Struct, frozen=True):
    """A file of the report; `missing_branches` are pairs of lines, negative ones the way out of a function."""

    summary: FileSummary
    missing_branches: tuple[tuple[int, int], ...] = ()


class CoverageReport(msgspec.Struct, frozen=True):
    """What `coverage json` writes, as far as it is read."""

    files: dict[str, MeasuredFile]


class PackageCoverage(msgspec.Struct, frozen=True):
    """Percentages of a package, and the branches that no test takes."""

    package: str
    lines: float
    branches: float
    missing: tuple[str, ...]


def coverage_of(package: str, files: Mapping[str, MeasuredFile]) -> PackageCoverage:
    """Return what was covered of a package. Nothing to cover counts as 0 %: the measurement went wrong."""
    inside = {name: file for name, file in sorted(files.items()) if name.startswith(package + "/")}
    summaries = [file.summary for file in inside.values()]
    return PackageCoverage(
        package=package,
        lines=_percent((each.covered_lines, each.num_statements) for each in summaries),
        branches=_percent((each.covered_branches, each.num_branches) for each in summaries),
        missing=tuple(
            f"{name}:{start}->{end}" for name, file in inside.items() for start, end in file.missing_branches
        ),
    )


def verdict(found: PackageCoverage, floor: float) -> str:
    """Return a package's coverage in one line, with what is missing where that is too much."""
    line = f"{found.package}: {found.lines:.1f} % of lines, {found.branches:.1f} % of branches"
    if found.branches >= floor:
        return line
    return f"{line}, fewer than {floor:.0f} %; not taken: {', '.join(found.missing)}"


def main(arguments: list[str]) -> int:
    """Print a line for each package; return 1 where one is below its floor."""
    report = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=CoverageReport)
    found = [(coverage_of(package, report.files), floor) for package, floor in FLOORS.items()]
    for each, floor in found:
        print(verdict(each, floor))
    return int(any(each.branches < floor for each, floor in found))


def _percent(counts: Iterable[tuple[int, int]]) -> float:
    pairs = list(counts)
    total = sum(of for _, of in pairs)
    return 100 * sum(covered for covered, _ in pairs) / total if total else 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
