"""Who is slow is let be, not shut out."""

from node.gossip.patience import FIRST_REST, LONGEST_REST, MOST_RESTING, Patience
from node.gossip.service import PENALTIES
from node.gossip.streams import SLOW


def test_a_slow_peer_rests_twice_as_long_each_time() -> None:
    """A peer that hangs whenever it is asked is asked ever more rarely, but at least every five minutes."""
    patience, now, rests = Patience(), 0.0, []
    for _ in range(9):
        patience.slow("a", now)
        began = now
        while patience.rests("a", now):
            now += 1.0
        rests.append(now - began)
    assert rests == [FIRST_REST * 2**turn for turn in range(6)] + [LONGEST_REST] * 3


def test_requests_that_hang_together_are_one_slowness() -> None:
    """Twenty requests that run out at the same moment cost one rest."""
    patience = Patience()
    for _ in range(20):
        patience.slow("a", 0.0)
    assert patience.rests("a", FIRST_REST - 1.0)
    assert not patience.rests("a", FIRST_REST)


def test_an_answer_ends_it() -> None:
    """A peer that answers in time again begins anew."""
    patience = Patience()
    for now in (0.0, 10.0, 30.0):
        patience.slow("a", now)
    patience.answered("a")
    patience.slow("a", 100.0)
    assert not patience.rests("a", 100.0 + FIRST_REST)


def test_names_cost_no_memory_without_end() -> None:
    """However many names are slow, a bounded number is remembered."""
    patience = Patience()
    for number in range(2 * MOST_RESTING):
        patience.slow(str(number), 0.0)
    assert sum(patience.rests(str(number), 1.0) for number in range(2 * MOST_RESTING)) == MOST_RESTING


def test_slowness_bans_nobody() -> None:
    """A swarm on busy machines must not shut itself out for half an hour."""
    assert PENALTIES[SLOW] == 0.0
