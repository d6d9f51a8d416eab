"""How much one peer draws from this node, and all of them together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.network.reqresp.upload_quota import MAX_PEERS, PEER_BURST, PEER_RATE, TOTAL_BURST_SECONDS, UploadQuota

MIB = 1 << 20
RATE = 16.0 * MIB


def drawn(quota: UploadQuota, peer: str, now: float, most: int = 10 * PEER_BURST) -> int:
    """Have a peer draw a megabyte again and again; return how many bytes it gets, at most so many."""
    found = 0
    while found < most and quota.allows(peer, MIB, now):
        found += MIB
    return found


def test_one_peer_draws_its_burst_and_no_more() -> None:
    """Of ten times the burst it gets the burst; another peer is served all the same."""
    quota = UploadQuota(RATE)
    assert drawn(quota, "greedy", 0.0) == PEER_BURST
    assert quota.allows("modest", MIB, 0.0)


def test_the_quota_comes_back_with_time() -> None:
    """A second later a peer has a second's share, and long after it the whole burst, not more."""
    quota = UploadQuota(RATE)
    drawn(quota, "greedy", 0.0)
    assert drawn(quota, "greedy", 1.0) == PEER_RATE
    assert drawn(quota, "greedy", 1_000.0) == PEER_BURST


def test_all_peers_share_the_configured_rate() -> None:
    """A hundred peers draw the burst of all together; nothing is counted against whom it refuses."""
    quota = UploadQuota(RATE)
    together = sum(drawn(quota, str(number), 0.0) for number in range(100))
    assert together == RATE * TOTAL_BURST_SECONDS
    assert drawn(quota, "late", 10.0) == PEER_BURST


def test_quotas_of_a_bounded_number_of_peers_are_kept() -> None:
    """Names cost nothing: those that drew first are forgotten."""
    quota = UploadQuota(1e12)
    for number in range(10 * MAX_PEERS):
        quota.allows(str(number), 1, 0.0)
    assert len(quota._used) == MAX_PEERS


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 8 * MIB), st.floats(0, 5)), max_size=80))
def test_no_more_leaves_than_burst_and_rate_allow(requests: list[tuple[str, int, float]]) -> None:
    """Whoever asks for what and when: the sum stays below what the configured rate allows."""
    quota, now, total = UploadQuota(RATE), 0.0, 0
    for peer, size, pause in requests:
        now += pause
        total += size * quota.allows(peer, size, now)
    assert total <= RATE * (TOTAL_BURST_SECONDS + now) + 1
