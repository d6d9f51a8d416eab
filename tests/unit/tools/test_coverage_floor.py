"""The coverage of the pure packages is shown, and too little of it fails."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tools.coverage_floor import FLOORS, MeasuredFile, coverage_of, main, verdict


def measured(branches: int, covered: int) -> dict[str, object]:
    """Return a file of a report, with one missing branch where not all are covered."""
    summary = {"num_statements": 10, "covered_lines": 9, "num_branches": branches, "covered_branches": covered}
    return {"summary": summary, "missing_branches": [[3, -1]] if covered < branches else []}


def report(tmp_path: Path, covered: int) -> str:
    """Write a report in which each package has two files of 50 branches, of which one misses some."""
    files = {f"{package}/one.py": measured(50, covered) for package in FLOORS}
    files |= {f"{package}/deep/two.py": measured(50, 50) for package in FLOORS}
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"meta": {"version": "7"}, "files": files | {"node/other.py": measured(50, 0)}}))
    return str(path)


@pytest.mark.parametrize(("covered", "code"), [(50, 0), (47, 0), (46, 1), (0, 1)])
def test_fewer_branches_than_the_floor_fail(
    covered: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The floor is 97 % of a package, whatever its single files have; other packages do not count."""
    assert main([report(tmp_path, covered)]) == code
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == list(FLOORS)
    assert all(f"{50 + covered}.0 % of branches" in line for line in printed)


def test_what_is_missing_is_named_where_it_is_too_much() -> None:
    """File, line, and where the branch leads."""
    files = msgspec.convert({"protocols/one.py": measured(2, 1)}, dict[str, MeasuredFile])
    found = coverage_of("protocols", files)
    line = "protocols: 90.0 % of lines, 50.0 % of branches"
    assert verdict(found, 50.0) == line
    assert verdict(found, 97.0) == f"{line}, fewer than 97 %; not taken: protocols/one.py:3->-1"


def test_a_report_without_the_package_is_no_success() -> None:
    """A measurement that saw nothing is a broken one."""
    assert coverage_of("protocols", {}).branches == 0.0
