import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.identity import NodeKey
from node.identity.local_peer import address_of_peer
from node.network.pubsub.validator import (
    HELD_KNOWN,
    HELD_PER_SLOT,
    HELD_STRANGERS,
    AnnouncementValidator,
    InboundMessage,
    announced,
)
from node.ports import RoundWindow
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
    said = Announcement(1, SWARM, round_number, stage, seed(round_number), body_digest(body), len(body), body)
    payload = encode(msgspec.structs.replace(said, **changes))
    return encode(Envelope(payload, key.sign(signing_hash(payload))))


def intake() -> AnnouncementValidator:
    fresh = AnnouncementValidator(SWARM, LIMITS)
    fresh.move(window())
    return fresh


def hear(memory: AnnouncementValidator, data: bytes, origin: NodeKey | None = ALICE) -> str:
    judged = memory.judge(InboundMessage(data=data, origin=origin.address if origin else None))
    return judged.reason or judged.outcome


def test_an_announcement_is_accepted_once_and_remembered() -> None:
    """The first copy is accepted, the second a duplicate; body, announcer and envelope are known from then on."""
    memory = intake()
    assert [hear(memory, signed()), hear(memory, signed())] == ["accept", "duplicate"]
    slot = Slot(ALICE.address, 5, 0, seed(5))
    assert memory.inline(slot, body_digest(b"body")) == b"body"
    assert memory.peer_id(ALICE.address) == ALICE.peer_id
    assert memory.envelope(slot) == signed()
    assert dict(memory.counters) == {"accepted": 1, "duplicate": 1}


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
        (signed(round_number=9), "early"),
        (signed(seed=bytes(32)), "seed"),
        (signed(inline=b"else"), "digest"),
        (signed(version=2), "version"),
        (signed(size=LIMITS.body + 1, inline=b""), "size"),
    ],
)
def test_each_kind_of_rubbish_is_dropped_and_counted(data: bytes, reason: str) -> None:
    """What is malformed, not signed by its publisher or out of place is dropped under its own reason."""
    memory = intake()
    assert hear(memory, data) == reason
    assert (dict(memory.counters), memory.slots()) == ({reason: 1}, [])


def test_a_stranger_is_told_from_a_forger() -> None:
    """A well-signed announcement of a peer that is not registered counts as unregistered."""
    assert hear(intake(), signed(BOB), BOB) == "unregistered"


@given(st.binary(max_size=300))
def test_no_bytes_break_the_intake(data: bytes) -> None:
    """Any bytes at all are judged without an exception and never accepted."""
    assert intake().judge(InboundMessage(data=data, origin=None)).outcome == "drop"


@given(st.integers(0, 300), st.integers(0, 255))
def test_no_altered_announcement_is_accepted(place: int, value: int) -> None:
    """With one byte changed an announcement is never accepted for another body than its signer announced."""
    original = signed()
    altered = bytearray(original)
    altered[place % len(original)] = value
    memory = intake()
    hear(memory, bytes(altered), None)
    slot = Slot(ALICE.address, 5, 0, seed(5))
    assert memory.announced(slot) in (None, body_digest(b"body"))


def test_a_second_body_is_evidence() -> None:
    """Two bodies for one slot: the second is passed on as evidence, once, so that nobody credits either."""
    memory = intake()
    assert hear(memory, signed()) == "accept"
    later = [memory.judge(InboundMessage(signed(body=body), ALICE.address)) for body in (b"other", b"other", b"third")]
    assert [(each.outcome, each.reason) for each in later] == [
        ("accept", "equivocation"), ("drop", "equivocation"), ("drop", "equivocation"),
    ]  # fmt: skip
    assert later[0].accepted
    (found,) = memory.evidence
    assert (found.first, found.second) == (body_digest(b"body"), body_digest(b"other"))
    assert memory.announced(found.slot) == found.first


def test_evidence_that_could_not_be_taken_in_may_come_again() -> None:
    """A full queue costs the conviction, not the first body."""
    memory = intake()
    hear(memory, signed())
    convicting = memory.judge(InboundMessage(signed(body=b"other"), ALICE.address)).accepted
    assert convicting
    memory.forget(convicting)
    assert memory.announced(Slot(ALICE.address, 5, 0, seed(5))) == body_digest(b"body")
    assert memory.judge(InboundMessage(signed(body=b"other"), ALICE.address)).accepted


def test_what_had_to_be_asked_for_is_told_to_be_late() -> None:
    """When it came says nothing about who was first."""
    for late in (True, False):
        judged = intake().judge(InboundMessage(data=signed(), origin=ALICE.address, late=late))
        assert judged.accepted is not None
        assert announced(judged.accepted).late is late


def test_the_next_stage_is_held_until_the_window_moves() -> None:
    """An announcement that comes before its stage is accepted, with its carrier, when the window has moved there."""
    memory = intake()
    assert memory.judge(InboundMessage(data=signed(stage=1), origin=ALICE.address, carrier="c")).outcome == "hold"
    (accepted,) = memory.move(window(5, 1))
    assert (accepted.peer, accepted.said.stage, accepted.heard.carrier) == (ALICE.address, 1, "c")
    assert memory.move(window(5, 1)) == []


def test_a_peer_of_the_next_round_is_held() -> None:
    """A stranger's announcement of the next round waits for the registration that comes with that round."""
    memory = intake()
    memory.move(window(5, 1))
    assert hear(memory, signed(BOB, 6), BOB) == "next"
    assert [each.peer for each in memory.move(window(6, 0, ALICE, BOB))] == [BOB.address]


def test_what_is_held_is_bounded() -> None:
    """Strangers can't fill the memory, nor push out what a registered peer has sent; nor can one peer fill its slot."""
    memory = intake()
    memory.move(window(5, 1, ALICE, BOB))
    assert hear(memory, signed(ALICE, 6)) == "next"
    for number in range(HELD_STRANGERS + 10):
        stranger = NodeKey(number.to_bytes(32, "big")[:31] + b"\x07")
        hear(memory, signed(stranger, 6), stranger)
    for number in range(HELD_PER_SLOT + 3):
        hear(memory, signed(ALICE, 6, body=b"%d" % number))
    for number in range(HELD_KNOWN + 3):
        hear(memory, signed(BOB, 6, seed=seed(number)), BOB)
    assert len(memory._held_strangers) <= HELD_STRANGERS
    first, evidence = memory.move(window(6, 0))
    assert (first.said.body, evidence.said.body) == (body_digest(b"body"), body_digest(b"0"))


def test_memory_ends_with_the_round() -> None:
    """A slot is forgotten when its round is no longer accepted, and when a reorg has changed the round's seed."""
    memory = intake()
    hear(memory, signed())
    memory.move(window(6))
    assert len(memory.slots()) == 1
    memory.move(window(7))
    assert memory.slots() == []


def test_a_reorg_opens_the_slot_again() -> None:
    """After a reorg the same peer may announce the same stage under the new seed, and that is no equivocation."""
    memory = intake()
    hear(memory, signed())
    other = msgspec.structs.replace(window(), seeds={4: seed(4), 5: bytes([9]) * 32})
    memory.move(other)
    assert memory.slots() == []
    assert hear(memory, signed(body=b"other", seed=bytes([9]) * 32)) == "accept"
    assert not memory.evidence


def test_nothing_is_accepted_before_the_chain_is_known() -> None:
    """Without a window every announcement is dropped (and learnt later by catching up)."""
    memory = AnnouncementValidator(SWARM, LIMITS)
    assert hear(memory, signed()) == "window"
    memory.move(window())
    assert hear(memory, signed()) == "accept"


def test_addresses_of_peer_ids() -> None:
    """A secp256k1 peer id gives its address, an RSA one none."""
    assert address_of_peer(ALICE.peer_id) == ALICE.address
    assert address_of_peer("QmQ1cyNkEkEKajPmwRh4NwgpCjun8rVkmtAv8ttxXStKtA") is None
