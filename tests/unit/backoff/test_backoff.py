"""Exponential back-off."""

from hypothesis import given
from hypothesis import strategies as st

from node.backoff import Backoff

BACKOFF = Backoff(first=0.5, longest=30.0, steady=60.0)


def test_pauses_double_up_to_the_longest() -> None:
    """There is none before the first failure."""
    assert [BACKOFF.pause(failures) for failures in range(9)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@given(failures=st.integers(0, 10**9))
def test_a_pause_never_shrinks_nor_overflows(failures: int) -> None:
    """However long a row is."""
    assert BACKOFF.pause(failures) <= BACKOFF.pause(failures + 1) <= 30.0


def test_steady_work_begins_a_new_row() -> None:
    """Without a time that counts as steady, a row never ends by itself."""
    assert BACKOFF.count(7, 59.9) == 8
    assert BACKOFF.count(7, 60.0) == 1
    assert Backoff(1.0, 2.0).count(7, 1e9) == 8
