"""Listening for a twin: the rule alone. How the node goes on around it stands in tests/scenarios."""

from hypothesis import given
from hypothesis import strategies as st

from node.machine.doppelganger import SEEDS_KEPT, is_twin, round_began
from node.machine.state import DoppelgangerWatch

ROUNDS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=30)


def seed(round_number: int) -> bytes:
    return round_number.to_bytes(32, "big")


@given(ROUNDS)
def test_it_ends_after_a_whole_round_in_which_somebody_could_be_heard(seen: list[tuple[int, bool]]) -> None:
    """Whatever order rounds are seen in (missed, repeated, undone by a reorg): when listening ends, the round before
    began while it listened, its beginning and end were both seen, and a twin could be heard in it."""
    listening = DoppelgangerWatch()
    entered: list[int] = []
    for round_number, reached in seen:
        before = listening
        after = round_began(before, round_number, seed(round_number), reached)
        if after is None:
            assert round_number == before.round + 1
            assert len(entered) > 1
            assert before.round in entered[1:]
            assert before.reached
            return
        if not entered or entered[-1] != round_number:
            entered.append(round_number)
        listening = after
        assert len(listening.fresh) <= SEEDS_KEPT


@given(st.integers(0, 1000), ROUNDS)
def test_old_messages_prove_nothing(first: int, seen: list[tuple[int, bool]]) -> None:
    """A message bound to a seed from before it began to listen never counts, whatever happens meanwhile."""
    listening: DoppelgangerWatch | None = round_began(DoppelgangerWatch(), first, seed(first), True)
    for later, (step, reached) in enumerate(seen, first + 1):
        assert listening is not None
        assert not any(is_twin(listening, seed(old)) for old in range(max(0, first - 3), first + 1))
        listening = round_began(listening, later + step % 2, seed(later), reached and step % 2 == 1)
        if listening is None:
            return


def test_a_twin_of_the_rounds_before_is_still_one() -> None:
    """Its message may come after its round; the seeds of the rounds listened to are remembered."""
    listening: DoppelgangerWatch | None = DoppelgangerWatch()
    for round_number in (5, 6, 7):
        assert listening is not None
        listening = round_began(listening, round_number, seed(round_number), False)
    assert listening is not None
    assert [is_twin(listening, seed(number)) for number in (5, 6, 7, 8)] == [False, True, True, False]
