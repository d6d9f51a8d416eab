"""What follows from faults of peers: pure decisions over counts and penalties."""

import pytest

from node.network.peers.peer_store import PENALTY_LIMIT, PeerStore
from node.network.pubsub.inbound_message import ValidationResult
from node.network.reputation import (
    FLOOD,
    IP_COLOCATION,
    MAX_USELESS_ANNOUNCEMENTS,
    PENALTY,
    SLOW_PEER,
    FaultOutcome,
    PeerReputation,
    counts_as_flood,
    fault_of,
)
from protocols.admission import REASONS, MessageAcceptance

FAULTS_TO_BAN = int(PENALTY_LIMIT / PENALTY)


@pytest.mark.parametrize("late", [True, False])
def test_what_counts_as_flood_follows_from_the_table(late: bool) -> None:
    """Every reason counts as its rule says; what is queued never does."""
    for reason, rule in REASONS.items():
        expected = {"always": True, "unasked": not late, "never": False}[rule.flood]
        assert counts_as_flood(ValidationResult(reason), late=late) == expected, reason
        assert not counts_as_flood(ValidationResult(reason, queued=True), late=late)


def test_what_is_rejected_is_a_fault_at_once_and_what_is_ignored_in_great_number() -> None:
    """A rejected message is a fault under its own reason, the first useless one too many a flood."""
    for reason, rule in REASONS.items():
        rejected = rule.acceptance is MessageAcceptance.REJECT
        assert fault_of(ValidationResult(reason), 1) == (reason if rejected else "")
        assert fault_of(ValidationResult(reason), MAX_USELESS_ANNOUNCEMENTS + 1) == (reason if rejected else FLOOD)


def test_useless_messages_are_counted_for_a_time() -> None:
    """Each forwarder has its own limit, and a new one with each period."""
    reputation = PeerReputation(PeerStore(None))
    for _ in range(MAX_USELESS_ANNOUNCEMENTS):
        assert reputation.record_result("a", ValidationResult("duplicate"), late=False) == ""
    assert reputation.record_result("b", ValidationResult("duplicate"), late=False) == ""
    assert reputation.record_result("a", ValidationResult("duplicate"), late=False) == FLOOD
    reputation.forget_useless()
    assert reputation.record_result("a", ValidationResult("duplicate"), late=False) == ""


def test_enough_faults_ban_a_peer_once() -> None:
    """The last fault bans and disconnects it; a further one disconnects it again, and is no new ban."""
    reputation = PeerReputation(PeerStore(None))
    outcomes = [reputation.record_fault("a", "frame", "1.1.1.1", 5.0) for _ in range(FAULTS_TO_BAN + 1)]
    assert outcomes == [
        *[FaultOutcome(newly_banned=False, disconnect=False)] * (FAULTS_TO_BAN - 1),
        FaultOutcome(newly_banned=True, disconnect=True),
        FaultOutcome(newly_banned=False, disconnect=True),
    ]


def test_three_banned_peers_ban_their_address() -> None:
    """Where the address is not known, nobody's is banned."""
    reputation = PeerReputation(PeerStore(None))
    for peer, ip in (("a", "1.1.1.1"), ("b", "1.1.1.1"), ("c", None), ("d", "1.1.1.1")):
        assert not reputation.is_ip_banned("1.1.1.1", 5.0)
        for _ in range(FAULTS_TO_BAN):
            reputation.record_fault(peer, "frame", ip, 5.0)
    assert reputation.is_ip_banned("1.1.1.1", 5.0)


@pytest.mark.parametrize(("reason", "disconnect"), [(SLOW_PEER, True), (IP_COLOCATION, False)])
def test_some_faults_cost_nothing(reason: str, disconnect: bool) -> None:
    """A slow peer is disconnected, however often, and never banned."""
    reputation = PeerReputation(PeerStore(None))
    outcomes = {reputation.record_fault("a", reason, None, 5.0) for _ in range(10 * FAULTS_TO_BAN)}
    assert outcomes == {FaultOutcome(newly_banned=False, disconnect=disconnect)}
