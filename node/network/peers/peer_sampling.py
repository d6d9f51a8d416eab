"""Whom a node tells of and whom it dials, out of all it knows: random samples over many networks, old peers among them.

If everybody told of the peers met last, the network would become a ribbon in the order of joining, and whoever redials
without end would be all that a newcomer hears of. Bitcoin Core's address manager has the same aims (buckets by network,
tried and new; Heilman et al., "Eclipse Attacks on Bitcoin's Peer-to-Peer Network", 2015). Pure.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import TypeVar

import msgspec

from node.network.peers.addresses import host_of, ip_of, is_global, network_of

T = TypeVar("T")


class KnownPeer(msgspec.Struct, frozen=True):
    """A peer that may be told of: its address, and since when it is known (Unix seconds)."""

    peer: str
    transport: str
    since: float


@lru_cache(maxsize=4096)
def network_group(transport: str) -> str:
    """Return what counts as one network when peers are chosen: the /16 of IPv4, the /64 of IPv6, else the host."""
    host = host_of(transport)
    found = ip_of(host)
    return network_of(found, 16) if found else host


def spread(items: Sequence[T], group: Callable[[T], Hashable], dice: random.Random) -> list[T]:
    """Return the items in random order, so that each group has its turn before any has its second one."""
    groups: defaultdict[Hashable, list[T]] = defaultdict(list)
    for item in dice.sample(items, len(items)):
        groups[group(item)].append(item)
    order = dice.sample(list(groups.values()), len(groups))
    longest = max(map(len, order), default=0)
    return [members[turn] for turn in range(longest) for members in order if turn < len(members)]


def sample_to_tell(known: Sequence[KnownPeer], count: int, dice: random.Random) -> list[KnownPeer]:
    """Return `count` peers to tell a stranger of: half of them from the half that is known for longest.

    Each half is spread over networks. Peers that came last, however often, are never all that is told.
    """
    by_age = sorted(known, key=lambda each: each.since)
    half = len(by_age) // 2
    old, new = (spread(part, _group, dice) for part in (by_age[:half], by_age[half:]))
    of_old = min(len(old), max(count // 2, count - len(new)))
    return [*old[:of_old], *new[: count - of_old]]


def _group(known: KnownPeer) -> str:
    return network_group(known.transport)


def may_be_told(transport: str, teller_ip: str | None) -> bool:
    """Return True if an address that a peer names may be dialled.

    A global one may. One of this machine or of a private network may be only where the peer that names it is seen in
    the same network: nobody from outside has this node knock at its neighbours.
    """
    found = ip_of(host_of(transport))
    if found is None:
        return True  # a name
    if found.is_unspecified or found.is_multicast or found.is_link_local:
        return False
    teller = ip_of(teller_ip or "")
    return is_global(found) or (teller is not None and network_of(teller, 16) == network_of(found, 16))
