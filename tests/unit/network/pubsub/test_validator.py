import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.identity import NodeKey
from node.identity.local_peer import address_of_peer
from node.network.pubsub.early_queue import MAX_EARLY_PER_SLOT, MAX_EARLY_REGISTERED, MAX_EARLY_UNREGISTERED
from node.network.pubsub.inbound_message import InboundMessage, rollouts_announced
from node.network.pubsub.validator import AnnouncementValidator
from node.ports.network import RoundWindow
from protocols.admission import Slot
from protocols.identifiers import body_digest
from protocols.manifest import Limits
from protocols.wire import Announcement, Envelope, encode, signing_hash

SWARM = bytes([7]) * 32
ALICE, BOB = NodeKey(bytes([1]) * 32), NodeKey(bytes([2]) * 32)
LIMITS = Limits()


def seed(round_number: int) -> bytes:
    return round_number.to_bytes(32, "big")


def window(round_number: int = 5, stage: int = 0, *peers: NodeKey) -> RoundWindow:
    return RoundWindow(
        swarm=SWARM,
        round=round_number,
        stage=stage,
        stages=2,
        seeds={number: seed(number) for number in (round_number - 1, round_number)},
        peers=frozenset(key.address for key in peers or (ALICE,)),
    )


def signed(
    key: NodeKey = ALICE, round_number: int = 5, stage: int = 0, body: bytes = b"body", **changes: object
) -> bytes:
    announcement = Announcement(1, SWARM, round_number, stage, seed(round_number), body_digest(body), len(body), body)
    payload = encode(msgspec.structs.replace(announcement, **changes))
    return encode(Envelope(payload, key.sign(signing_hash(payload))))


def new_validator() -> AnnouncementValidator:
    fresh = AnnouncementValidator(SWARM, LIMITS)
    fresh.move(window())
    return fresh


def validate(validator: AnnouncementValidator, data: bytes, origin: NodeKey | None = ALICE) -> str:
    result = validator.validate(InboundMessage(data=data, origin=origin.address if origin else None))
    return result.reason or result.acceptance.value


def test_an_announcement_is_accepted_once_and_remembered() -> None:
    """The first copy is accepted, the second a duplicate; body, announcer and envelope are known from then on."""
    validator = new_validator()
    assert [validate(validator, signed()), validate(validator, signed())] == ["accept", "duplicate"]
    slot = Slot(ALICE.address, 5, 0, seed(5))
    assert validator.inline(slot, body_digest(b"body")) == b"body"
    assert validator.peer_id(ALICE.address) == ALICE.peer_id
    assert validator.envelope(slot) == signed()
    assert dict(validator.counters) == {"accepted": 1, "duplicate": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "schema"),
        (b"\xc1" * 90, "schema"),
        (bytes(LIMITS.announcement + 1), "size"),
        (signed()[:-1], "schema"),
        (signed()[:-65] + bytes([9]) * 65, "signature"),
        (signed(BOB), "signature"),
        (signed(swarm=bytes(32)), "swarm"),
        (signed(round_number=2), "round"),
        (signed(round_number=9), "future"),
        (signed(seed=bytes(32)), "seed"),
        (signed(inline=b"else"), "digest"),
        (signed(version=2), "version"),
        (signed(size=LIMITS.body + 1, inline=b""), "size"),
    ],
)
def test_each_kind_of_rubbish_is_counted(data: bytes, reason: str) -> None:
    """What is malformed, not signed by its publisher or out of place is not accepted, under its own reason."""
    validator = new_validator()
    assert validate(validator, data) == reason
    assert (dict(validator.counters), validator.slots()) == ({reason: 1}, [])


def test_a_stranger_is_told_from_a_forger() -> None:
    """A well-signed announcement of a peer that is not registered counts as unregistered."""
    assert validate(new_validator(), signed(BOB), BOB) == "unregistered"


@given(st.binary(max_size=300))
def test_no_bytes_break_the_validator(data: bytes) -> None:
    """Any bytes at all are validated without an exception and never accepted."""
    result = new_validator().validate(InboundMessage(data=data, origin=None))
    assert (result.accepted, result.queued) == (None, False)


@given(st.integers(0, 300), st.integers(0, 255))
def test_no_altered_announcement_is_accepted(place: int, value: int) -> None:
    """With one byte changed an announcement is never accepted for another body than its signer announced."""
    original = signed()
    altered = bytearray(original)
    altered[place % len(original)] = value
    validator = new_validator()
    validate(validator, bytes(altered), None)
    slot = Slot(ALICE.address, 5, 0, seed(5))
    assert validator.announced(slot) in (None, body_digest(b"body"))


def test_a_second_body_is_evidence() -> None:
    """Two bodies for one slot: the second is passed on as evidence, once, so that nobody credits either."""
    validator = new_validator()
    assert validate(validator, signed()) == "accept"
    later = [
        validator.validate(InboundMessage(signed(body=body), ALICE.address)) for body in (b"other", b"other", b"third")
    ]
    assert [(each.acceptance, each.reason) for each in later] == [
        ("accept", "equivocation"), ("ignore", "equivocation"), ("ignore", "equivocation"),
    ]  # fmt: skip
    assert later[0].accepted
    (found,) = validator.evidence
    assert (found.first, found.second) == (body_digest(b"body"), body_digest(b"other"))
    assert validator.announced(found.slot) == found.first


def test_evidence_that_could_not_be_taken_in_may_come_again() -> None:
    """A full queue costs the conviction, not the first body."""
    validator = new_validator()
    validate(validator, signed())
    convicting = validator.validate(InboundMessage(signed(body=b"other"), ALICE.address)).accepted
    assert convicting
    validator.withdraw(convicting)
    assert validator.announced(Slot(ALICE.address, 5, 0, seed(5))) == body_digest(b"body")
    assert validator.validate(InboundMessage(signed(body=b"other"), ALICE.address)).accepted


def test_what_had_to_be_asked_for_is_reported_as_late() -> None:
    """When it came says nothing about who was first."""
    for late in (True, False):
        result = new_validator().validate(InboundMessage(data=signed(), origin=ALICE.address, late=late))
        assert result.accepted is not None
        assert rollouts_announced(result.accepted).late is late


def test_the_next_stage_is_queued_until_the_window_moves() -> None:
    """An early announcement is ignored and queued; it is accepted, with its handle, when the window has moved there."""
    validator = new_validator()
    result = validator.validate(InboundMessage(data=signed(stage=1), origin=ALICE.address, handle="h"))
    assert (result.acceptance, result.queued) == ("ignore", True)
    (accepted,) = validator.move(window(5, 1))
    assert (accepted.peer, accepted.announcement.stage, accepted.message.handle) == (ALICE.address, 1, "h")
    assert validator.move(window(5, 1)) == []


def test_a_peer_of_the_next_round_is_queued() -> None:
    """A stranger's announcement of the next round waits for the registration that comes with that round."""
    validator = new_validator()
    validator.move(window(5, 1))
    assert validate(validator, signed(BOB, 6), BOB) == "early"
    assert [each.peer for each in validator.move(window(6, 0, ALICE, BOB))] == [BOB.address]


def test_the_early_queue_is_bounded() -> None:
    """Strangers can't fill the memory, nor push out what a registered peer has sent; nor can one peer fill its slot."""
    validator = new_validator()
    validator.move(window(5, 1, ALICE, BOB))
    assert validate(validator, signed(ALICE, 6)) == "early"
    for number in range(MAX_EARLY_UNREGISTERED + 10):
        stranger = NodeKey(number.to_bytes(32, "big")[:31] + b"\x07")
        validate(validator, signed(stranger, 6), stranger)
    for number in range(MAX_EARLY_PER_SLOT + 3):
        validate(validator, signed(ALICE, 6, body=b"%d" % number))
    for number in range(MAX_EARLY_REGISTERED + 3):
        validate(validator, signed(BOB, 6, seed=seed(number)), BOB)
    assert validator._early.unregistered() <= MAX_EARLY_UNREGISTERED
    first, evidence = validator.move(window(6, 0))
    assert (first.announcement.body, evidence.announcement.body) == (body_digest(b"body"), body_digest(b"0"))


def test_validator_ends_with_the_round() -> None:
    """A slot is forgotten when its round is no longer accepted, and when a reorg has changed the round's seed."""
    validator = new_validator()
    validate(validator, signed())
    validator.move(window(6))
    assert len(validator.slots()) == 1
    validator.move(window(7))
    assert validator.slots() == []


def test_a_reorg_opens_the_slot_again() -> None:
    """After a reorg the same peer may announce the same stage under the new seed, and that is no equivocation."""
    validator = new_validator()
    validate(validator, signed())
    other = msgspec.structs.replace(window(), seeds={4: seed(4), 5: bytes([9]) * 32})
    validator.move(other)
    assert validator.slots() == []
    assert validate(validator, signed(body=b"other", seed=bytes([9]) * 32)) == "accept"
    assert not validator.evidence


def test_nothing_is_accepted_before_the_chain_is_known() -> None:
    """Without a window every announcement is ignored (and learnt later by catching up)."""
    validator = AnnouncementValidator(SWARM, LIMITS)
    assert validate(validator, signed()) == "no-window"
    validator.move(window())
    assert validate(validator, signed()) == "accept"


def test_addresses_of_peer_ids() -> None:
    """A secp256k1 peer id gives its address, an RSA one none."""
    assert address_of_peer(ALICE.peer_id) == ALICE.address
    assert address_of_peer("QmQ1cyNkEkEKajPmwRh4NwgpCjun8rVkmtAv8ttxXStKtA") is None
