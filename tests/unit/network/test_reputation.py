"""What follows from faults of peers: pure decisions over counts and penalties."""

import msgspec
import pytest

from node.network.peers.peer_store import PENALTY_LIMIT, PeerStore
from node.network.pubsub.inbound_message import ValidationResult
from node.network.reputation import (
    FLOOD,
    IP_COLOCATION,
    MAX_BODIES_FORWARDED,
    MAX_SLOTS,
    PENALTY,
    SLOW_PEER,
    FaultOutcome,
    PeerReputation,
)
from protocols.admission import REASONS, MessageAcceptance, Slot

FAULTS_TO_BAN = int(PENALTY_LIMIT / PENALTY)


SLOT = Slot("0x" + "1" * 40, 5, 0, b"5" * 32)


@pytest.mark.parametrize("late", [True, False])
def test_only_what_no_honest_peer_forwards_is_a_fault(late: bool) -> None:
    """A rejected message is one under its own reason; an ignored one never is, however many there are."""
    reputation = PeerReputation(PeerStore(None))
    for reason, rule in REASONS.items():
        rejected = rule.acceptance is MessageAcceptance.REJECT
        faults = {reputation.fault_of("a", ValidationResult(reason), late=late) for _ in range(5_000)}
        assert faults == {reason if rejected else ""}


def test_whoever_signed_it_an_author_uses_up_its_own_allowance() -> None:
    """Accepted and queued messages and further bodies of a slot are no useless messages of who forwards them."""
    for reason, rule in REASONS.items():
        assert ValidationResult(reason).is_useless == (rule.counts_against == "forwarder"), reason
        assert not ValidationResult(reason, queued=True).is_useless
    assert {reason for reason, rule in REASONS.items() if rule.counts_against == "author"} == {"", "equivocation"}


def test_an_honest_forwarder_brings_few_bodies_of_a_slot() -> None:
    """Two of each slot, and two more after a restart, are no fault; ten times as many are, and of another slot not."""
    reputation = PeerReputation(PeerStore(None))
    another = ValidationResult("equivocation", slot=SLOT)
    faults = [reputation.fault_of("a", another, late=False) for _ in range(10 * MAX_BODIES_FORWARDED)]
    assert faults == [""] * MAX_BODIES_FORWARDED + [FLOOD] * 9 * MAX_BODIES_FORWARDED
    assert reputation.fault_of("b", another, late=False) == ""
    assert reputation.fault_of("a", another, late=True) == ""
    other = ValidationResult("equivocation", slot=msgspec.structs.replace(SLOT, stage=1))
    assert reputation.fault_of("a", other, late=False) == ""


def test_what_is_counted_of_slots_is_bounded() -> None:
    """Ten times as many slots as are kept: the oldest are forgotten, and their forwarder begins anew."""
    reputation = PeerReputation(PeerStore(None))
    for number in range(MAX_SLOTS + 10):
        of_slot = msgspec.structs.replace(SLOT, round=number)
        reputation.fault_of("a", ValidationResult("equivocation", slot=of_slot), late=False)
    assert len(reputation._bodies_forwarded) == MAX_SLOTS


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
