"""Who is slow is let be, not shut out."""

from node.network.peers.request_backoff import FIRST_REST, FORGIVEN, LONGEST_REST, MOST_SLOW, TOGETHER, RequestBackoff
from node.network.reqresp.streams import SLOW
from node.network.service import PENALTIES


def slow(patience: RequestBackoff, peer: str, times: int, now: float = 0.0) -> float:
    """Have a peer be slow some times in a row; return when it was last."""
    for turn in range(times):
        now += TOGETHER * (turn > 0)
        patience.slow(peer, now)
    return now


def test_a_peer_that_is_slow_again_and_again_rests_ever_longer() -> None:
    """Some times are forgiven; then it rests twice as long each time, but is asked at least twice a minute."""
    patience, now, rests = RequestBackoff(), 0.0, []
    for _ in range(FORGIVEN + 7):
        patience.slow("a", now)
        began = now
        while patience.rests("a", now):
            now += 0.5
        rests.append(now - began)
        now = max(now, began + TOGETHER)
    assert rests == [0.0] * FORGIVEN + [FIRST_REST * 2**turn for turn in range(5)] + [LONGEST_REST] * 2


def test_requests_that_hang_together_are_one_slowness() -> None:
    """Twenty requests that run out within the same seconds cost no rest."""
    patience = RequestBackoff()
    for number in range(20):
        patience.slow("a", TOGETHER * number / 20)
    assert not patience.rests("a", TOGETHER)


def test_an_answer_ends_it() -> None:
    """A peer that answers in time begins anew."""
    patience = RequestBackoff()
    now = slow(patience, "a", FORGIVEN)
    patience.answered("a")
    now = slow(patience, "a", FORGIVEN, now + TOGETHER)
    assert not patience.rests("a", now)
    patience.slow("a", now + TOGETHER)
    assert patience.rests("a", now + TOGETHER)


def test_names_cost_no_memory_without_end() -> None:
    """However many names are slow, a bounded number is remembered."""
    patience, names = RequestBackoff(), [str(number) for number in range(2 * MOST_SLOW)]
    for turn in range(FORGIVEN + 1):
        for name in names[:MOST_SLOW] if turn < FORGIVEN else names:
            patience.slow(name, TOGETHER * turn)
    assert not any(patience.rests(name, TOGETHER * FORGIVEN) for name in names)


def test_slowness_bans_nobody() -> None:
    """A swarm on busy machines must not shut itself out for half an hour."""
    assert PENALTIES[SLOW] == 0.0
