"""Doppelganger protection: the rule alone. How the node goes on around it stands in tests/scenarios."""

from hypothesis import given
from hypothesis import strategies as st

from node.machine.doppelganger import SEEDS_KEPT, is_doppelganger, watch_after
from node.machine.state import DoppelgangerWatch

ROUNDS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=30)


def seed(round_number: int) -> bytes:
    return round_number.to_bytes(32, "big")


@given(ROUNDS)
def test_it_ends_after_a_whole_round_in_which_a_doppelganger_could_be_detected(seen: list[tuple[int, bool]]) -> None:
    """Whatever order rounds are seen in (missed, repeated, undone by a reorg): when the protection ends, the round
    before began during it, its beginning and end were both seen, and a doppelganger could be detected in it."""
    watch = DoppelgangerWatch()
    entered: list[int] = []
    for round_number, reachable in seen:
        before = watch
        after = watch_after(before, round_number, seed(round_number), reachable)
        if after is None:
            assert round_number == before.round + 1
            assert len(entered) > 1
            assert before.round in entered[1:]
            assert before.was_reachable
            return
        if not entered or entered[-1] != round_number:
            entered.append(round_number)
        watch = after
        assert len(watch.new_seeds) <= SEEDS_KEPT


@given(st.integers(0, 1000), ROUNDS)
def test_old_messages_prove_nothing(first: int, seen: list[tuple[int, bool]]) -> None:
    """A message bound to a seed from before the protection never counts, whatever happens meanwhile."""
    watch: DoppelgangerWatch | None = watch_after(DoppelgangerWatch(), first, seed(first), True)
    for later, (step, reachable) in enumerate(seen, first + 1):
        assert watch is not None
        assert not any(is_doppelganger(watch, seed(old)) for old in range(max(0, first - 3), first + 1))
        watch = watch_after(watch, later + step % 2, seed(later), reachable and step % 2 == 1)
        if watch is None:
            return


def test_a_doppelganger_of_an_earlier_round_is_still_one() -> None:
    """Its message may come after its round; the seeds of the rounds of the protection are remembered."""
    watch: DoppelgangerWatch | None = DoppelgangerWatch()
    for round_number in (5, 6, 7):
        assert watch is not None
        watch = watch_after(watch, round_number, seed(round_number), False)
    assert watch is not None
    assert [is_doppelganger(watch, seed(number)) for number in (5, 6, 7, 8)] == [False, True, True, False]
