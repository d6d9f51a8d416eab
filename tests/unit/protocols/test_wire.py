"""The messages between peers."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.identifiers import body_digest
from protocols.signed_messages import (
    MAX_ATTACHED,
    MAX_WALLET_SIGNATURE,
    SignedCommitment,
    SignedDelegation,
    SignedMessage,
    SignedRevocation,
    SignedReward,
    SignedVote,
    VoteReveal,
)
from protocols.wire import (
    INTRODUCTION_LIMIT,
    NOTHING,
    PROTOCOL_VERSION,
    Announcement,
    Completion,
    Envelope,
    Group,
    Malformed,
    Rollouts,
    decode_envelope,
    decode_introduction,
    decode_rollouts,
    encode,
)

BODY = encode(Rollouts(3, 0, bytes(32), (Group(0, 7, (Completion("#### 4", b"\1\0\0\0", b"\0\0\0\0", True),)),)))

ADA, BOB = "0x" + "a" * 40, "0x" + "b" * 40
SIGNATURE, WORD = bytes(65), bytes(32)
DELEGATION = SignedDelegation(ADA, BOB, 2**63, 2**63, bytes(MAX_WALLET_SIGNATURE), SIGNATURE)
CARGO = (
    DELEGATION,
    SignedRevocation(ADA, BOB, 1, SIGNATURE),
    SignedCommitment(3, WORD, SIGNATURE),
    VoteReveal(3, (ADA, BOB), WORD),
    SignedVote(3, (ADA,), SIGNATURE),
    SignedReward(3, 2, -(2**61), SIGNATURE),
)


def announcement(**changes: object) -> Announcement:
    plain = Announcement(PROTOCOL_VERSION, bytes(32), 3, 0, bytes(32), body_digest(BODY), len(BODY), BODY)
    return msgspec.structs.replace(plain, **changes)


def sealed(said: Announcement) -> bytes:
    return encode(Envelope(encode(said), bytes(65)))


def test_what_is_encoded_comes_back() -> None:
    """An envelope and a body decode to what was encoded."""
    said = announcement()

    _, heard = decode_envelope(sealed(said), 65_536)

    assert said == heard
    assert Rollouts(3, 0, bytes(32), decode_rollouts(BODY, said.body, 1_000).groups) == decode_rollouts(
        BODY, said.body, 1_000
    )


def test_what_is_carried_comes_back() -> None:
    """Messages of every kind travel with an announcement, also with one that has no rollouts."""
    for said in (
        announcement(relays=True, attached=CARGO),
        announcement(body=NOTHING, size=0, inline=b"", attached=(DELEGATION,) * MAX_ATTACHED),
    ):
        assert decode_envelope(sealed(said), 65_536)[1] == said


@pytest.mark.parametrize(
    "message",
    [
        SignedCommitment(-1, WORD, SIGNATURE),
        SignedCommitment(3, b"short", SIGNATURE),
        SignedVote(3, (), SIGNATURE),
        SignedVote(3, (ADA,) * 17, SIGNATURE),
        SignedVote(3, (ADA.upper(),), SIGNATURE),
        SignedVote(3, (ADA,), bytes(64)),
        SignedReward(3, 16, 0, SIGNATURE),
        SignedReward(3, 0, 2**62, SIGNATURE),
        SignedDelegation(ADA, "bob", 1, 1, SIGNATURE, b""),
        SignedRevocation(ADA, BOB, 1, bytes(MAX_WALLET_SIGNATURE + 1)),
    ],
)
def test_what_no_contract_takes_does_not_travel(message: SignedMessage) -> None:
    """A carried message with a field that can't be right makes the announcement malformed."""
    with pytest.raises(Malformed, match="schema"):
        decode_envelope(sealed(announcement(attached=(message,))), 65_536)


def test_an_introduction_is_a_delegation_and_nothing_else() -> None:
    """A newcomer's delegation comes back; another message, a long one, or one with something behind it is refused."""
    data = encode(DELEGATION)

    assert decode_introduction(data) == DELEGATION
    for bad, code in (
        (msgspec.msgpack.encode(CARGO[1]), "schema"),
        (data + b"\0", "schema"),
        (data[:-1], "schema"),
        (bytes(INTRODUCTION_LIMIT + 1), "size"),
    ):
        with pytest.raises(Malformed) as caught:
            decode_introduction(bad)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sealed(announcement(attached=(DELEGATION,) * (MAX_ATTACHED + 1))), "schema"),
        (sealed(announcement(size=0, inline=b"", body=body_digest(b""))), "schema"),
        (sealed(announcement(body=NOTHING)), "schema"),
        (sealed(announcement(size=-1, inline=b"")), "schema"),
        (sealed(announcement(size=0, body=NOTHING)), "digest"),
        (sealed(announcement(version=99)), "version"),
        (sealed(announcement(inline=BODY + b"x")), "digest"),
        (sealed(announcement(seed=b"short")), "schema"),
        (sealed(announcement(round=-1)), "schema"),
        (sealed(announcement(size=0, inline=b"")), "schema"),
        (sealed(announcement()) + bytes(70_000), "size"),
        (b"\xc1", "schema"),
        (b"\x91" * 60_000, "schema"),
    ],
)
def test_a_malformed_envelope_is_refused_with_its_code(data: bytes, code: str) -> None:
    """Each kind of malformation has its own reason code."""
    with pytest.raises(Malformed) as caught:
        decode_envelope(data, 65_536)

    assert code == caught.value.code


@given(st.binary(max_size=512))
def test_no_bytes_make_the_decoders_raise_anything_else(data: bytes) -> None:
    """Whatever a stranger sends, the decoders return or raise Malformed."""
    for decode in (
        lambda: decode_envelope(data, 65_536),
        lambda: decode_rollouts(data, body_digest(data), 65_536),
        lambda: decode_introduction(data),
    ):
        with contextlib.suppress(Malformed):
            decode()


def test_a_body_of_another_digest_is_refused() -> None:
    """A body counts only under the digest that was announced."""
    with pytest.raises(Malformed, match="digest"):
        decode_rollouts(BODY, bytes(32), 1_000)
