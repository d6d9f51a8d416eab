"""Whom to turn away by where it comes from: peer ids cost nothing, addresses cost a little."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence

from node.network.peers.addresses import ip_of, network_of

BANS_SHUT = 3
"""Bans of peer ids seen under one address after which nobody is let in from it."""
SHUT_SECONDS = 1800.0
"""How long a ban counts against its address."""
MOST_ADDRESSES = 1024


def place(address: str) -> str:
    """Return what counts as one address: of IPv6 a /64, of which anybody has all."""
    found = ip_of(address)
    return network_of(found, 32) if found else address


class IpBans:
    """Addresses from which banned peers came. A shut address may still be dialled: this node chooses whom."""

    def __init__(self) -> None:
        self._bans: OrderedDict[str, tuple[float, ...]] = OrderedDict()

    def note_ban(self, address: str, now: float) -> None:
        """Count a ban against an address; the address whose ban is oldest is forgotten where there are too many."""
        where = place(address)
        recent = tuple(at for at in self._bans.pop(where, ()) if at > now - SHUT_SECONDS)
        self._bans[where] = (*recent, now)[-BANS_SHUT:]
        if len(self._bans) > MOST_ADDRESSES:
            self._bans.popitem(last=False)

    def is_shut(self, address: str, now: float) -> bool:
        """Tell whether an address has had its bans."""
        return sum(at > now - SHUT_SECONDS for at in self._bans.get(place(address), ())) >= BANS_SHUT


def surplus(connected: Sequence[tuple[str, str]], most: int) -> list[str]:
    """Return whom to turn away so that `most` stay: each time the newest peer of the most crowded address.

    `connected` are (peer, address), the oldest first. Twenty identities on one address take each other's place before
    they take anybody else's.
    """
    crowd = Counter(address for _, address in connected)
    staying = list(connected)
    away = []
    while len(staying) > most:
        worst = max(crowd.values())
        place = max(at for at, (_, address) in enumerate(staying) if crowd[address] == worst)
        peer, address = staying.pop(place)
        crowd[address] -= 1
        away.append(peer)
    return away


def pruned(mesh: Sequence[tuple[str, str]], chosen: Collection[str], most: int, kept: int) -> list[str]:
    """Return whom to prune from a mesh so that `most` stay: nobody of the first `kept` that this node has chosen itself
    (GossipSub 1.1's outbound quota), then the most crowded addresses first.

    `mesh` are (peer, address). Who crowds a node from one address so never is all that it hears.
    """
    safe = [peer for peer, _ in mesh if peer in chosen][:kept]
    return surplus([each for each in mesh if each[0] not in safe], max(0, most - len(safe)))
