"""Messages between peers: the signed announcement (gossip) and the body of rollouts (fetched by digest).

Encoding is MessagePack with array-like structs. Size is checked before decoding; decoding is strict. Broken UTF-8 makes
msgspec raise UnicodeDecodeError, which is a ValueError like its own DecodeError, but not one of those.
"""

from __future__ import annotations

import msgspec

from protocols.identifiers import Address, Digest, Seed, body_digest, keccak256
from protocols.session import SessionStatement
from protocols.signed_messages import AttachedMessages, SignedDelegation

PROTOCOL_VERSION = 1
ENVELOPE_DOMAIN = b"swarm/announcement/1"
ENVELOPE_OVERHEAD = 256
"""Bytes that an envelope and the announcement's fixed fields add to an inline body and a cargo, rounded up."""
NOTHING: Digest = bytes(32)
"""The body of an announcement without rollouts: a node that made none in a stage still has messages to be brought."""
INTRODUCTION_LIMIT = 3072
"""Bytes of a newcomer's delegation, and of the statement that binds it to an RSA identity."""


class Malformed(ValueError):  # noqa: N818 - reads as what the message is
    """Bytes from a peer that are too large or do not decode; `code` is the reason counted in metrics."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class Announcement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a peer says once per stage: which rollouts it made. `inline` is the body itself when it is small.

    Where there are none, `size` is 0 and `body` is `NOTHING`. `relays` says that the peer has funds and will bring the
    messages that others carry in this stage; `carried` are its own. What is carried is checked by who brings it.
    """

    version: int
    swarm: Digest
    round: int
    stage: int
    seed: Seed
    body: Digest
    size: int
    inline: bytes
    relays: bool = False
    carried: AttachedMessages = ()


class BoundAnnouncement(Announcement, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """An announcement of a peer with an RSA identity: `session` binds the key that signs it. Always has every field."""

    session: SessionStatement


class BoundDelegation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="bound"):
    """How a newcomer with an RSA identity introduces itself: its delegation, and what binds that node to it."""

    delegation: SignedDelegation
    session: SessionStatement


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An encoded announcement and the sender's recoverable secp256k1 signature (r, s, v: 65 bytes, v in {0, 1})."""

    payload: bytes
    signature: bytes


class Completion(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One sampled answer.

    `tokens` holds the sampled ids as little-endian uint32, the end token included; `logps` holds the behaviour
    log-probability of each as little-endian float32; `finished` tells an end token from a cut at the length limit.
    """

    text: str
    tokens: bytes
    logps: bytes
    finished: bool


class Group(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All completions of one question; `slot` is its place in the sender's assignment, `question` its index."""

    slot: int
    question: int
    completions: tuple[Completion, ...]


class Rollouts(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body: every group that a peer made in a stage. `tokenizer` is the fingerprint of the ids in it.

    `quoted` are the bodies of earlier stages that its prompts quote: with them every receiver has the same prompts.
    In a game of several stages `seed` is the round's, so that nobody quotes what answers another round's questions, and
    `author` the peer's address, so that nobody announces it as his own: there all have the same questions.
    """

    round: int
    stage: int
    tokenizer: Digest
    groups: tuple[Group, ...]
    quoted: tuple[Digest, ...] = ()
    seed: Seed = b""
    author: Address = ""


class Quoting(msgspec.Struct, frozen=True, array_like=True):
    """What `Rollouts` quote, read without their groups."""

    round: int
    stage: int
    tokenizer: Digest
    groups: msgspec.Raw
    quoted: tuple[Digest, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_envelopes = msgspec.msgpack.Decoder(Envelope)
_announcements = msgspec.msgpack.Decoder(Announcement)
_bound_announcements = msgspec.msgpack.Decoder(BoundAnnouncement)
_BOUND_HEAD = bytes([0x90 + len(BoundAnnouncement.__struct_fields__)])
"""MessagePack's head of an array of so many elements: the two kinds of announcement differ in their number."""
_introductions: msgspec.msgpack.Decoder[SignedDelegation | BoundDelegation] = msgspec.msgpack.Decoder(
    SignedDelegation | BoundDelegation
)
_bodies = msgspec.msgpack.Decoder(Rollouts)
_quotings = msgspec.msgpack.Decoder(Quoting)


def encode(
    message: Announcement
    | Envelope
    | Rollouts
    | SignedDelegation
    | BoundDelegation
    | SessionStatement
    | AttachedMessages,
) -> bytes:
    """Return the message as MessagePack."""
    return _encoder.encode(message)


def signing_hash(payload: bytes) -> bytes:
    """Return the 32 bytes that the sender signs: Keccak-256 over domain and payload."""
    return keccak256(ENVELOPE_DOMAIN + payload)


def decode_envelope(data: bytes, limit: int) -> tuple[Envelope, Announcement]:
    """Decode gossip bytes of at most `limit` bytes. Raises `Malformed` with codes size, schema, version or digest."""
    if len(data) > limit:
        raise Malformed("size", f"{len(data)} bytes, limit {limit}")
    try:
        envelope = _envelopes.decode(data)
        bound = envelope.payload.startswith(_BOUND_HEAD)
        announcement = (_bound_announcements if bound else _announcements).decode(envelope.payload)
    except (ValueError, RecursionError) as error:
        raise Malformed("schema", str(error)) from error
    problem = _shape_problem(envelope, announcement)
    if problem:
        raise Malformed(*problem)
    return envelope, announcement


def _shape_problem(envelope: Envelope, said: Announcement) -> tuple[str, str] | None:
    """Return code and detail of the first fixed-size field that is wrong."""
    if said.version != PROTOCOL_VERSION:
        return "version", f"version {said.version}, this node speaks {PROTOCOL_VERSION}"
    if len(envelope.signature) != 65 or any(len(field) != 32 for field in (said.swarm, said.seed, said.body)):
        return "schema", "a signature has 65 bytes, digests and seeds have 32"
    if said.round < 0 or said.stage < 0 or said.size < 0:
        return "schema", "round, stage and size are not negative"
    if (said.size == 0) != (said.body == NOTHING):
        return "schema", "a body is not empty, and no body has no digest"
    if said.inline and (len(said.inline) != said.size or body_digest(said.inline) != said.body):
        return "digest", "the inline body is not the announced one"
    return None


def decode_introduction(data: bytes) -> SignedDelegation | BoundDelegation:
    """Decode a newcomer's delegation. Raises `Malformed` with codes size or schema."""
    if len(data) > INTRODUCTION_LIMIT:
        raise Malformed("size", f"{len(data)} bytes, limit {INTRODUCTION_LIMIT}")
    try:
        return _introductions.decode(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("schema", str(error)) from error


def decode_rollouts(body: bytes, digest: Digest, limit: int) -> Rollouts:
    """Decode a fetched body. Raises `Malformed` with codes size, digest or schema."""
    if len(body) > limit:
        raise Malformed("size", f"{len(body)} bytes, limit {limit}")
    if body_digest(body) != digest:
        raise Malformed("digest", "the body is not the announced one")
    try:
        return _bodies.decode(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("schema", str(error)) from error


def quoting_of(body: bytes) -> Quoting | None:
    """Return what a body quotes, None where it is no body; its groups are skipped, not decoded."""
    try:
        return _quotings.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def quoted_in(body: bytes) -> tuple[Digest, ...]:
    """Return the digests that a body quotes, none where it is no body."""
    found = quoting_of(body)
    return found.quoted if found else ()
