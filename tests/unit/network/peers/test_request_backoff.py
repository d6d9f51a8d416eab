"""A slow peer is asked more rarely, not banned."""

from node.network.peers.request_backoff import (
    BACKOFF,
    MAX_BACKOFFS,
    SAME_INCIDENT_SECONDS,
    TOLERATED_TIMEOUTS,
    RequestBackoff,
    backoff_after,
)
from node.network.reputation import PENALTIES
from node.network.reqresp.streams import TIMEOUT


def slow(backoff: RequestBackoff, peer: str, times: int, now: float = 0.0) -> float:
    """Have a peer be slow some times in a row; return when it was last."""
    for turn in range(times):
        now += SAME_INCIDENT_SECONDS * (turn > 0)
        backoff.record_timeout(peer, now)
    return now


def test_a_peer_that_times_out_again_and_again_backs_off_ever_longer() -> None:
    """Some timeouts are tolerated; then it backs off twice as long each time, but is asked at least twice a minute."""
    backoff, now, pauses = RequestBackoff(), 0.0, []
    for _ in range(TOLERATED_TIMEOUTS + 7):
        backoff.record_timeout("a", now)
        began = now
        while backoff.is_backing_off("a", now):
            now += 0.5
        pauses.append(now - began)
        now = max(now, began + SAME_INCIDENT_SECONDS)
    assert pauses == [0.0] * TOLERATED_TIMEOUTS + [BACKOFF.first * 2**turn for turn in range(5)] + [BACKOFF.longest] * 2


def test_requests_that_hang_together_are_one_slowness() -> None:
    """Twenty requests that run out within the same seconds cost no rest."""
    backoff = RequestBackoff()
    for number in range(20):
        backoff.record_timeout("a", SAME_INCIDENT_SECONDS * number / 20)
    assert not backoff.is_backing_off("a", SAME_INCIDENT_SECONDS)


def test_an_answer_ends_it() -> None:
    """A peer that answers in time begins anew."""
    backoff = RequestBackoff()
    now = slow(backoff, "a", TOLERATED_TIMEOUTS)
    backoff.record_answer("a")
    now = slow(backoff, "a", TOLERATED_TIMEOUTS, now + SAME_INCIDENT_SECONDS)
    assert not backoff.is_backing_off("a", now)
    backoff.record_timeout("a", now + SAME_INCIDENT_SECONDS)
    assert backoff.is_backing_off("a", now + SAME_INCIDENT_SECONDS)


def test_names_cost_no_memory_without_end() -> None:
    """However many names are slow, a bounded number is remembered."""
    backoff, names = RequestBackoff(), [str(number) for number in range(2 * MAX_BACKOFFS)]
    for turn in range(TOLERATED_TIMEOUTS + 1):
        for name in names[:MAX_BACKOFFS] if turn < TOLERATED_TIMEOUTS else names:
            backoff.record_timeout(name, SAME_INCIDENT_SECONDS * turn)
    assert not any(backoff.is_backing_off(name, SAME_INCIDENT_SECONDS * TOLERATED_TIMEOUTS) for name in names)


def test_slowness_bans_nobody() -> None:
    """A swarm on busy machines must not shut itself out for half an hour."""
    assert PENALTIES[TIMEOUT] == 0.0


def test_timeouts_for_days_are_one_long_backoff() -> None:
    """However often a peer has timed out, the back-off is the longest one."""
    assert backoff_after(TOLERATED_TIMEOUTS) == 0.0
    assert backoff_after(100_000) == BACKOFF.longest
