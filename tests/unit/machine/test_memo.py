"""Results are derived again when anything that they follow from has changed, and only then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.machine.memo import is_same, remembered

SCALARS = st.one_of(st.integers(), st.text(max_size=3), st.binary(max_size=3))


def counted() -> tuple[list[tuple[object, ...]], object]:
    """Return a function that is remembered, and the list of its calls."""
    calls: list[tuple[object, ...]] = []

    @remembered
    def function(table: dict[str, int], number: int) -> int:
        calls.append((table, number))
        return sum(table.values()) + number

    return calls, function


def test_the_same_objects_are_asked_about_once() -> None:
    """A thousand inputs that change nothing cost one derivation."""
    calls, function = counted()
    table = {"a": 1}
    assert {function(table, 10**9) for _ in range(1_000)} == {10**9 + 1}  # type: ignore[operator]
    assert len(calls) == 1


def test_what_was_replaced_is_derived_anew() -> None:
    """An equal dictionary that is another object is not trusted to be the same; another number is another one."""
    calls, function = counted()
    assert function({"a": 1}, 1) == function({"a": 1}, 1) == 2  # type: ignore[operator]
    assert function({"a": 5}, 1) == 6  # type: ignore[operator]
    assert function({"a": 5}, 2) == 7  # type: ignore[operator]
    assert len(calls) == 4


@given(st.lists(SCALARS, max_size=4), st.lists(SCALARS, max_size=4))
def test_scalars_are_the_same_where_they_are_equal(one: list[object], other: list[object]) -> None:
    """Tables by identity, scalars by value, and never a prefix for the whole."""
    assert is_same(tuple(one), tuple(other)) == (one == other)
    assert not is_same(({},), ({},))
