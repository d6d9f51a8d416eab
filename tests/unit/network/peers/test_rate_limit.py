"""How much a peer may send, from which networks, and whose bodies come first."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from node.exits import Refusal
from node.machine.commands import FetchRollouts
from node.network.peers.addresses import host_of, network_key, networks
from node.network.peers.rate_limit import (
    MAX_PEERS,
    TRUSTED_LIMIT,
    UNTRUSTED_LIMIT,
    RateLimit,
    RateLimiter,
    UsedAllowance,
    charge,
)
from node.network.pubsub.validator import AnnouncementValidator
from node.network.reqresp.fetcher import MAX_UNTRUSTED_REQUESTS, BodyFetcher
from node.ports.bodies import Verdict
from protocols.manifest import Limits
from protocols.wire import Announcement

FRAMES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5000), st.floats(0, 10)), max_size=60)


@given(FRAMES)
def test_no_more_passes_than_burst_and_rate_allow(frames: list[tuple[int, int, float]]) -> None:
    """Whatever is sent when, what is taken stays below the burst and what has been added since."""
    limit = RateLimit(100, 9000, 2.0, 500.0)
    used, now, messages, size = UsedAllowance(), 0.0, 0, 0
    for more, length, pause in frames:
        now += pause
        used, within = charge(used, limit, more, length, now)
        messages += more * within
        size += length * within

    assert messages <= 100 + 2.0 * now + 1e-6
    assert size <= 9000 + 500.0 * now + 1e-6


def useless(limiter: RateLimiter, peer: str, count: int, now: float, *, trusted: bool = False) -> int:
    """Have a peer bring useless messages as long as it is heard; return how many."""
    heard = 0
    while heard < count and limiter.hears(peer, now, trusted=trusted):
        limiter.count_useless(peer, now, trusted=trusted)
        heard += 1
    return heard


def test_a_peer_without_credit_may_send_less() -> None:
    """A stranger's burst is a quarter of that of a peer that has proven good; others are not affected."""
    limiter = RateLimiter()
    heard = {name: useless(limiter, name, 10_000, 5.0, trusted=name == "good") for name in ("stranger", "good")}
    assert heard == {"stranger": UNTRUSTED_LIMIT.burst_messages, "good": TRUSTED_LIMIT.burst_messages}
    assert limiter.hears("another", 5.0, trusted=False)


def test_useful_messages_use_nothing_up() -> None:
    """However many messages a peer forwards: while they are of use, it is heard."""
    limiter = RateLimiter()
    assert all(limiter.hears("a", 5.0, trusted=False) for _ in range(10 * TRUSTED_LIMIT.burst_messages))


def test_what_was_used_comes_back_with_time() -> None:
    """A peer that was not heard is heard again a second later, and ten bursts later has its whole burst again."""
    limiter = RateLimiter()
    assert useless(limiter, "a", 10_000, 0.0) == UNTRUSTED_LIMIT.burst_messages
    assert not limiter.hears("a", 0.0, trusted=False)
    assert limiter.hears("a", 1.0, trusted=False)
    assert useless(limiter, "a", 10_000, 1_000.0) == UNTRUSTED_LIMIT.burst_messages


def test_bytes_beyond_the_limit_are_not_taken() -> None:
    """The burst is taken whole, not a byte more; what flows off makes room again."""
    limiter = RateLimiter()
    assert limiter.allows("a", UNTRUSTED_LIMIT.burst_bytes, 0.0, trusted=False)
    assert not limiter.allows("a", 1, 0.0, trusted=False)
    assert limiter.allows("a", int(UNTRUSTED_LIMIT.bytes), 1.0, trusted=False)


def test_quotas_are_kept_for_a_bounded_number_of_peers() -> None:
    """Names cost nothing: those not heard for longest are forgotten."""
    limiter = RateLimiter()
    for number in range(10 * MAX_PEERS):
        limiter.allows(str(number), 1, 0.0, trusted=False)
    assert len(limiter._used) == MAX_PEERS


@pytest.mark.parametrize(
    ("ip", "found"),
    [
        ("203.0.113.5", "203.0.113.0/24"),
        ("203.0.113.250", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.5", "203.0.113.0/24"),
        ("10.1.2.3", ""),
        ("example.org", ""),
        (None, ""),
    ],
)
def test_addresses_are_counted_by_network(ip: str | None, found: str) -> None:
    """A /24 or /64 is one neighbour; trusted networks and names are not counted."""
    assert network_key(ip, networks(("10.0.0.0/8",))) == found


def test_a_malformed_network_is_refused_in_one_line() -> None:
    """The operator learns which key is wrong and how it is written."""
    with pytest.raises(Refusal, match=r"gossip\.trusted_networks: .*192\.168\.0\.0/16"):
        networks(("10.0.0.1/8",))


def test_the_host_of_a_transport_address_is_found() -> None:
    """Whatever is no address has none."""
    assert host_of("/ip4/203.0.113.5/tcp/38331") == "203.0.113.5"
    assert host_of("nonsense") == ""


async def test_silent_strangers_keep_no_body_of_a_known_peer_waiting() -> None:
    """As many strangers as are asked at once hold all their places; who has credit is asked all the same."""
    asked: list[bytes] = []

    class Silent:
        async def ask(self, peer: str, digest: bytes, size: int) -> None:
            asked.append(digest)
            await trio.sleep_forever()

    class Empty:
        def get(self, digest: bytes) -> None:
            return None

        def put(self, digest: bytes, body: bytes, round_number: int) -> None:
            raise AssertionError(digest)

    def check(peer: str, announcement: Announcement, body: bytes) -> Verdict:
        raise AssertionError(peer)

    async def report(said: object) -> None:
        raise AssertionError(said)

    fetcher = BodyFetcher(AnnouncementValidator(bytes(32), Limits()), Empty(), check, 10, lambda peer: peer == "good")
    for number in range(2 * MAX_UNTRUSTED_REQUESTS):
        fetcher.enqueue(FetchRollouts(f"stranger {number}", 1, 0, bytes(32), b"stranger", 10))
    fetcher.enqueue(FetchRollouts("good", 1, 0, bytes(32), b"good", 10))
    silent: Any = Silent()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.run, silent, lambda: {"somebody"}, report)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert sorted(asked) == [b"good", *[b"stranger"] * MAX_UNTRUSTED_REQUESTS]
