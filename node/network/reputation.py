"""What peers have done wrong, and what follows from it: penalties, bans, the limit of useless announcements.

No network, clock or log here: times are Unix seconds that the caller gives.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from node.network.peers.ip_bans import IpBans
from node.network.peers.peer_store import PeerStore
from node.network.pubsub.inbound_message import ValidationResult
from node.network.reqresp.streams import EOF, IDLE, TIMEOUT
from protocols.admission import REASONS, MessageAcceptance

IP_COLOCATION = "ip-colocation"
SLOW_PEER = "slow-peer"
FLOOD = "flood"
FLOOD_SECONDS, MAX_USELESS_ANNOUNCEMENTS = 10.0, 200
"""How many useless announcements a peer may forward in a time: even an honest one forwards some. Those that are
useless because this node lags do not count: `node.network.peers.rate_limit` and an answer's limits bound them."""

PENALTY = 10.0
PENALTIES = {
    # Slowness alone bans nobody (`node.network.peers.request_backoff`): a busy machine is slow, too.
    SLOW_PEER: 0.0,
    TIMEOUT: 0.0,
    IP_COLOCATION: 0.0,
    # A busy or killed peer leaves idle streams and streams that end early behind, by the dozen.
    IDLE: 2.0,
    EOF: 2.0,
    "swarm": 5.0,
    "subscriptions": 5.0,
}
"""Points by reason; any other reason costs `PENALTY`. `node.network.peers.peer_store` has the limit for a ban."""


class FaultOutcome(msgspec.Struct, frozen=True):
    """What follows from a fault: whether the peer is banned by it, and whether it is to be disconnected."""

    newly_banned: bool
    disconnect: bool


def counts_as_flood(result: ValidationResult, *, late: bool) -> bool:
    """Return True if a message counts towards its forwarder's limit. `late`: this node had asked for it."""
    if result.acceptance is MessageAcceptance.ACCEPT or result.queued:
        return False
    rule = REASONS[result.reason]
    return rule.flood == "always" or (rule.flood == "unasked" and not late)


def fault_of(result: ValidationResult, useless: int) -> str:
    """Return the forwarder's fault, "" for none. `useless` counts its useless messages, this one included."""
    if result.acceptance is MessageAcceptance.REJECT:
        return result.reason
    return FLOOD if useless > MAX_USELESS_ANNOUNCEMENTS else ""


class PeerReputation:
    """The faults of peers. Penalties and bans are kept in the peer store, IP bans and counts in memory."""

    def __init__(self, store: PeerStore) -> None:
        self._store = store
        self._ip_bans = IpBans()
        self._useless: Counter[str] = Counter()

    def record_result(self, forwarder: str, result: ValidationResult, *, late: bool) -> str:
        """Note what a peer has forwarded; return its fault, "" for none."""
        self._useless[forwarder] += counts_as_flood(result, late=late)
        return fault_of(result, self._useless[forwarder])

    def forget_useless(self) -> None:
        """Begin a new period of `FLOOD_SECONDS`."""
        self._useless.clear()

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
