"""What peers have done wrong, and what follows from it: penalties and bans.

No network, clock or log here: times are Unix seconds that the caller gives.
"""

from __future__ import annotations

import msgspec
from cachetools import FIFOCache

from node.network.peers.ip_bans import IpBans
from node.network.peers.peer_store import PeerStore
from node.network.pubsub.inbound_message import ValidationResult
from node.network.reqresp.streams import EOF, IDLE, TIMEOUT
from protocols.admission import MessageAcceptance, Slot

IP_COLOCATION = "ip-colocation"
SLOW_PEER = "slow-peer"
FLOOD = "flood"
MAX_BODIES_FORWARDED = 4
"""Useless further bodies of one slot that a peer may forward. An honest one forwards two bodies of each slot, and as
many again after a restart."""
MAX_SLOTS = 65_536
"""Slots and forwarders for which those are counted; the oldest are forgotten first."""

PENALTY = 10.0
PENALTIES = {
    # Slowness alone bans nobody (`node.network.peers.request_backoff`): a busy machine is slow, too.
    SLOW_PEER: 0.0,
    TIMEOUT: 0.0,
    IP_COLOCATION: 0.0,
    # A busy or killed peer leaves idle streams and streams that end early behind, by the dozen.
    IDLE: 2.0,
    EOF: 2.0,
    # No implementation sends a frame above the limit, for it would not take one either.
    "frame-size": 100.0,
    "swarm": 5.0,
    "subscriptions": 5.0,
}
"""Points by reason; any other reason costs `PENALTY`. `node.network.peers.peer_store` has the limit for a ban."""


class FaultOutcome(msgspec.Struct, frozen=True):
    """What follows from a fault: whether the peer is banned by it, and whether it is to be disconnected."""

    newly_banned: bool
    disconnect: bool


class PeerReputation:
    """The faults of peers. Penalties and bans are kept in the peer store, IP bans and counts in memory."""

    def __init__(self, store: PeerStore) -> None:
        self._store = store
        self._ip_bans = IpBans()
        self._bodies_forwarded: FIFOCache[tuple[str, Slot], int] = FIFOCache(MAX_SLOTS)

    def fault_of(self, forwarder: str, result: ValidationResult, *, late: bool) -> str:
        """Return the fault of who forwarded a message with this result, "" for none: only what no honest peer does.

        `late`: this node had asked for it, and an answer may repeat what has come meanwhile.
        """
        if result.acceptance is MessageAcceptance.REJECT:
            return result.reason
        if result.slot is None or late:
            return ""
        count = self._bodies_forwarded.get((forwarder, result.slot), 0) + 1
        self._bodies_forwarded[forwarder, result.slot] = count
        return FLOOD if count > MAX_BODIES_FORWARDED else ""

    def record_fault(self, peer: str, reason: str, ip: str | None, now: float) -> FaultOutcome:
        """Add a fault's penalty. A ban counts against the IP address under which the peer is seen, too."""
        before = self._store.is_banned(peer, now)
        banned = before or self._store.penalise(peer, PENALTIES.get(reason, PENALTY), now)
        newly = banned and not before
        if newly and ip is not None:
            self._ip_bans.add_banned_peer(ip, now)
        return FaultOutcome(newly_banned=newly, disconnect=banned or reason == SLOW_PEER)

    def is_ip_banned(self, ip: str, now: float) -> bool:
        """Return True if nobody is let in from an IP address."""
        return self._ip_bans.is_ip_banned(ip, now)
