"""The phase tables: what they refuse, that the machine runs from them, and that all of them is reached."""

import ast
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

from node.machine import phases, step
from node.machine.commands import AnyCommand
from node.machine.inputs import AnyInput
from node.machine.notices import AnyNotice
from node.machine.phases import (
    CLOSED,
    VOTE,
    WORK,
    PhaseError,
    VoteEvent,
    VotePhase,
    WorkEvent,
    WorkPhase,
    becomes_vote,
    becomes_work,
)
from node.runtime.log_events import COMMAND_EVENTS, INPUT_EVENTS, NOTICE_EVENTS
from tests.scenarios.runner import run_file
from tests.support.paths import ROOT


class Recording(dict[Any, Any]):
    """A table that remembers which of its rows were looked up."""

    def __init__(self, table: Mapping[Any, Any]) -> None:
        super().__init__(table)
        self.asked: set[Any] = set()

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


@pytest.fixture(scope="module")
def reached() -> tuple[set[Any], set[Any]]:
    """Return the rows of both tables that the scenarios look up."""
    work, vote = Recording(WORK), Recording(VOTE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "WORK", work)
        patch.setattr(phases, "VOTE", vote)
        for path in sorted((ROOT / "tests" / "scenarios").glob("*.txt")):
            run_file(path.read_text())
    return work.asked, vote.asked


def test_the_scenarios_reach_every_row(reached: tuple[set[Any], set[Any]]) -> None:
    """A transition that no scenario shows is one that nobody has thought through."""
    work, vote = reached
    assert work == set(WORK)
    assert vote == set(VOTE)


def undefined(phase: Any, event: Any, rows: Mapping[Any, Any]) -> list[Any]:
    """Return the pairs that are in no row, those before the first phase among them."""
    return [pair for pair in product((None, *get_args(phase)), get_args(event)) if pair not in rows]


@pytest.mark.parametrize(("phase", "event"), undefined(WorkPhase, WorkEvent, WORK))
def test_work_that_is_in_no_row_is_refused(phase: WorkPhase | None, event: WorkEvent) -> None:
    """A defect of the machine shows at once, and is not taken for a phase."""
    with pytest.raises(PhaseError, match="work: "):
        becomes_work(phase, event)


@pytest.mark.parametrize(("phase", "event"), undefined(VotePhase, VoteEvent, VOTE))
def test_a_vote_that_is_in_no_row_is_refused(phase: VotePhase | None, event: VoteEvent) -> None:
    """Among them: a vote that failed is not sent again, one that is done does not fail."""
    with pytest.raises(PhaseError, match="vote: "):
        becomes_vote(phase, event)


def test_every_phase_and_event_is_in_a_row() -> None:
    """The tables have no phase that nothing leads to, and name no event that changes nothing."""
    assert set(WORK.values()) == set(get_args(WorkPhase))
    assert set(VOTE.values()) == set(get_args(VotePhase))
    assert {event for _, event in WORK} == set(get_args(WorkEvent))
    assert {event for _, event in VOTE} == set(get_args(VoteEvent))


def test_every_vote_can_be_closed() -> None:
    """From each phase a closed one is reached: no vote is carried along for ever."""
    for phase in set(get_args(VotePhase)) - CLOSED:
        assert any(before == phase and after in CLOSED for (before, _), after in VOTE.items())


def test_phases_change_nowhere_else() -> None:
    """`replace(..., phase=...)` stands in the two functions that look the tables up, and in no other place."""
    found = []
    for path in sorted((ROOT / "node" / "machine").glob("*.py")):
        for call in (each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)):
            for keyword in call.keywords:
                if keyword.arg == "phase" and not _is_lookup(keyword.value) and path.stem != "views":
                    found.append(f"{path.name}:{call.lineno}")
    assert found == []


def test_no_phase_is_written_down_where_a_work_or_vote_is_made() -> None:
    """`Work` and `VoteRecord` get their phase from the tables too; before the first stage there is no work."""
    found = []
    for path in sorted((ROOT / "node" / "machine").glob("*.py")):
        for call in (each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            place = {"Work": 0, "VoteRecord": 3}.get(name)
            if place is not None and not (len(call.args) > place and _is_lookup(call.args[place])):
                found.append(f"{path.name}: {ast.unparse(call)}")
    assert found == ["state.py: Work('skipped')"]


def _is_lookup(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id.startswith("becomes_")


def test_every_input_has_a_handler_and_every_handler_an_input() -> None:
    """The step function's table covers the union of inputs."""
    assert set(step.HANDLERS) == set(get_args(AnyInput))


def test_every_output_is_logged_under_one_name() -> None:
    """Timers alone are not: they come by the dozen."""
    names = {command.__name__ for command in get_args(AnyCommand)}
    assert {command.__name__ for command in COMMAND_EVENTS} == names - {"SetTimer"}
    assert set(NOTICE_EVENTS) == set(get_args(AnyNotice))
    assert {each.__name__ for each in get_args(AnyInput)} - {each.__name__ for each in INPUT_EVENTS} == {"TimerFired"}


def test_the_phases_page_is_in_the_reference() -> None:
    """The diagram is drawn from the tables; tests/unit/tools/test_reference.py keeps it fresh."""
    text = Path(ROOT / "docs" / "reference" / "state-machine.md").read_text()
    assert text.count("stateDiagram-v2") == 2
