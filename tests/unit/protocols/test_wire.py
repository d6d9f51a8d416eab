"""The messages between peers."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.identifiers import body_digest
from protocols.wire import (
    PROTOCOL_VERSION,
    Announcement,
    Completion,
    Envelope,
    Group,
    Malformed,
    Rollouts,
    decode_envelope,
    decode_rollouts,
    encode,
)

BODY = encode(Rollouts(3, 0, bytes(32), (Group(0, 7, (Completion("#### 4", b"\1\0\0\0", b"\0\0\0\0", True),)),)))


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


@pytest.mark.parametrize(
    ("data", "code"),
    [
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
    for decode in (lambda: decode_envelope(data, 65_536), lambda: decode_rollouts(data, body_digest(data), 65_536)):
        with contextlib.suppress(Malformed):
            decode()


def test_a_body_of_another_digest_is_refused() -> None:
    """A body counts only under the digest that was announced."""
    with pytest.raises(Malformed, match="digest"):
        decode_rollouts(BODY, bytes(32), 1_000)
