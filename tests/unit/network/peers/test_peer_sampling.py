"""Whom peers tell of and dial: a network that grows by these rules is a random graph, whoever redials."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.network.peers.peer_manager import MAX_PEERS_SHARED, TARGET_PEERS
from node.network.peers.peer_sampling import KnownPeer, may_be_told, network_group, sample_to_tell, spread
from node.network.peers.peer_store import MAX_PEERS, PeerStore
from tests.unit.network.peers.graphs import join, mean_path, random_graph

PLACES = 64
KNOWN = st.lists(
    st.builds(KnownPeer, st.uuids().map(str), st.integers(0, 9).map("/ip4/9.{}.0.1/tcp/1".format), st.floats(0, 9)),
    max_size=60,
    unique_by=lambda each: each.peer,
)  # fmt: skip


def transport_of(peer: int) -> str:
    """Return an address in one of some hundred networks."""
    return f"/ip4/{11 + peer % 13}.{peer % 101}.{peer % 250}.7/tcp/1"


def grown(peers: int, dice: Random) -> list[set[int]]:
    """Join peers one after another: each asks a bootnode that has met all, dials whom it tells of, and asks them."""
    graph: list[set[int]] = [set() for _ in range(peers)]
    known = [KnownPeer(str(peer), transport_of(peer), float(peer)) for peer in range(peers)]
    for newcomer in range(1, peers):
        heard = sample_to_tell(known[:newcomer], MAX_PEERS_SHARED, dice)
        while heard and len(graph[newcomer]) < TARGET_PEERS:
            told = spread(heard, lambda each: network_group(each.transport), dice)
            heard = []
            for other in (int(each.peer) for each in told):
                full = len(graph[newcomer]) >= TARGET_PEERS or len(graph[other]) >= PLACES
                if other != newcomer and other not in graph[newcomer] and not full:
                    join(graph, newcomer, other)
                    heard += sample_to_tell([known[peer] for peer in graph[other]], MAX_PEERS_SHARED, dice)
    return graph


@pytest.mark.parametrize("peers", [40, 1_000])
def test_a_network_that_grows_is_a_random_graph(peers: int) -> None:
    """The mean path is at most a tenth longer than in a random graph of as many edges."""
    dice = Random(7)
    graph = grown(peers, dice)
    same = random_graph(peers, sum(map(len, graph)) // 2, dice)
    starts = range(0, peers, max(1, peers // 40))
    assert mean_path(graph, starts) <= 1.1 * mean_path(same, starts)


def test_who_redials_without_end_is_not_all_that_a_newcomer_hears() -> None:
    """Three hundred honest peers of a hundred networks, 32 attackers in four that came last: half of what is told, and
    more, is honest. Each attacker comes under a new name whenever it likes: a thousand names in the store."""
    store, now = PeerStore(None), 0.0
    for peer in range(300):
        now += 1.0
        store.mark_connected(f"honest {peer}", now, transport_of(peer))
    for name in range(2 * MAX_PEERS):
        now += 1.0
        store.mark_connected(f"attacker {name}", now, f"/ip4/99.{name % 4}.{name % 200}.1/tcp/1")
    counts = Counter[str]()
    for seed in range(50):
        told = sample_to_tell(store.tellable(now), MAX_PEERS_SHARED, Random(seed))
        first = spread(told, lambda each: network_group(each.transport), Random(seed))[:TARGET_PEERS]
        counts.update(each.peer.split()[0] for each in first)
    assert counts["honest"] > 0.5 * counts.total()
    assert sum(store.get(f"honest {peer}").seen > 0 for peer in range(300)) == 300, "none was pushed out"


@given(KNOWN, st.integers(0, 40), st.integers())
def test_a_sample_is_of_what_is_known(known: list[KnownPeer], count: int, seed: int) -> None:
    """As many as asked for, as far as there are any, none twice, and at least half of them old where there are."""
    told = sample_to_tell(known, count, Random(seed))
    assert len(told) == len({each.peer for each in told}) == min(count, len(known))
    assert {each.peer for each in told} <= {each.peer for each in known}
    old = {each.peer for each in sorted(known, key=lambda each: each.since)[: len(known) // 2]}
    assert sum(each.peer in old for each in told) >= min(len(old), count // 2)


@given(st.lists(st.integers(0, 5)), st.integers())
def test_each_network_has_its_turn_before_any_has_two(groups: list[int], seed: int) -> None:
    """In any beginning of the order no network has two more than another that still has some."""
    order = spread(groups, lambda each: each, Random(seed))
    assert Counter(order) == Counter(groups)
    for end in range(len(order)):
        begun, left = Counter(order[:end]), Counter(order[end:])
        assert all(begun[each] >= max(begun.values(), default=0) - 1 for each in left)


@pytest.mark.parametrize(
    ("transport", "teller", "allowed"),
    [
        ("/ip4/93.184.216.34/tcp/1", "8.8.8.8", True),
        ("/ip4/93.184.216.34/tcp/1", None, True),
        ("/ip4/127.0.0.1/tcp/22", "8.8.8.8", False),
        ("/ip4/127.0.0.1/tcp/1", "127.0.0.1", True),
        ("/ip4/10.0.0.5/tcp/1", "8.8.8.8", False),
        ("/ip4/10.0.0.5/tcp/1", "10.0.7.9", True),
        ("/ip4/10.9.0.5/tcp/1", "10.0.7.9", False),
        ("/ip4/192.168.1.5/tcp/1", None, False),
        ("/ip4/0.0.0.0/tcp/1", "127.0.0.1", False),
        ("/ip4/224.0.0.1/tcp/1", "8.8.8.8", False),
        ("/ip6/::1/tcp/1", "2001:4860:4860::8888", False),
        ("/ip6/fe80::1/tcp/1", "fe80::2", False),
        ("/ip6/2606:2800:220:1::1/tcp/1", "8.8.8.8", True),
        ("/dns4/peer.example/tcp/1", "8.8.8.8", True),
    ],
)
def test_nobody_from_outside_names_addresses_inside(transport: str, teller: str | None, allowed: bool) -> None:
    """Private addresses and this machine's are dialled only where the peer that names them is there as well."""
    assert may_be_told(transport, teller) is allowed
