"""IP bans: peer ids cost nothing, addresses cost a little."""

from __future__ import annotations

from cachetools import FIFOCache

from node.network.peers.addresses import ip_of, network_of

MAX_BANNED_PEERS = 3
"""Bans of peers seen under one IP address after which nobody is let in from it."""
IP_BAN_SECONDS = 1800.0
"""How long a peer's ban counts against its address."""
MAX_ADDRESSES = 1024


def ip_key(address: str) -> str:
    """Return what counts as one address: of IPv6 the /64, all of which anybody has."""
    found = ip_of(address)
    return network_of(found, 32) if found else address


class IpBans:
    """Addresses under which banned peers were seen. A banned address may still be dialled: this node chooses whom."""

    def __init__(self) -> None:
        self._bans: FIFOCache[str, tuple[float, ...]] = FIFOCache(MAX_ADDRESSES)

    def add_banned_peer(self, address: str, now: float) -> None:
        """Count a ban against an address. Where there are too many addresses, the one banned longest ago goes."""
        key = ip_key(address)
        recent = tuple(at for at in self._bans.get(key, ()) if at > now - IP_BAN_SECONDS)
        self._bans[key] = (*recent, now)[-MAX_BANNED_PEERS:]

    def is_ip_banned(self, address: str, now: float) -> bool:
        """Return True if as many peers were banned under an address as it takes."""
        return sum(at > now - IP_BAN_SECONDS for at in self._bans.get(ip_key(address), ())) >= MAX_BANNED_PEERS
