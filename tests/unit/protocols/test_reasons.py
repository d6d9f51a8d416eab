"""The table of reasons why a body counts for nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from protocols.reasons import BODY_REASONS, OTHER, counted_as, severity_of
from tests.support.paths import ROOT

SOURCES = (
    "node/validation/body_check.py",
    "node/network/reqresp/fetcher.py",
    "node/machine/uncounted_bodies.py",
    "node/machine/external_bodies.py",
)


GIVING = ("refuse_and_penalise", "count_refused")
"""Functions that are told a reason."""


def reasons_in(path: Path) -> Iterator[str]:
    """Yield texts that a source returns, or gives as a reason."""
    for found in ast.walk(ast.parse(path.read_text())):
        if isinstance(found, ast.Return) and found.value is not None:
            yield from texts_of(found.value)
        if isinstance(found, ast.keyword) and found.arg in ("reason", "doubt"):
            yield from texts_of(found.value)
        if isinstance(found, ast.Call) and isinstance(found.func, ast.Name) and found.func.id in GIVING:
            yield from (text for each in found.args for text in texts_of(each))


def texts_of(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
        yield value.value
    if isinstance(value, ast.IfExp):
        yield from (*texts_of(value.body), *texts_of(value.orelse))


def test_every_reason_that_the_code_gives_stands_in_the_table() -> None:
    """A new code needs its severity and its sentence, or nobody knows what it does."""
    given = {reason for source in SOURCES for reason in reasons_in(ROOT / source)}

    assert given <= set(BODY_REASONS)
    assert {"poison", "copy", "unavailable", "crowded", "certain", "assignment", "equivocation"} <= given


def test_an_unknown_reason_is_counted_as_other_and_penalised() -> None:
    """Labels stay bounded whatever a plug-in says."""
    assert counted_as("made-up") == OTHER
    assert counted_as("poison") == "poison"
    assert severity_of("made-up") == "low_tolerance"
