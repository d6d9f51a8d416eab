"""The committed gas report is true, and meets the targets."""

from __future__ import annotations

import pytest

from tools.gas_report import FEW, TARGETS, measure, problems, read_report


def test_the_committed_report_meets_its_targets() -> None:
    """With few nodes and with many, which cost the same."""
    few, many = read_report()
    for action, most in TARGETS.items():
        assert max(few[action], many[action]) <= most
        assert abs(few[action] - many[action]) < 50


@pytest.mark.integration
def test_the_committed_report_is_current() -> None:
    """Measured anew on a fresh chain with few nodes; `python -m tools.gas_report --check` measures with many, too."""
    measured, _ = measure(FEW, FEW)
    assert problems(measured, read_report()[0]) == []
