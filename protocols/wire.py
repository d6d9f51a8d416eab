"""Messages between peers: the signed announcement (gossip) and the body of rollouts (fetched by digest).

Encoding is MessagePack with array-like structs. Size is checked before decoding; decoding is strict. On broken UTF-8
msgspec raises UnicodeDecodeError, which is a ValueError but not a `msgspec.DecodeError`.
"""

from __future__ import annotations

import hashlib

import msgspec

from protocols.identifiers import Address, Digest, Seed, body_digest, keccak256
from protocols.session import SessionStatement
from protocols.signed_messages import AttachedMessages, SignedDelegation

PROTOCOL_VERSION = 1
ENVELOPE_DOMAIN = b"swarm/announcement/1"
ENVELOPE_OVERHEAD = 256
"""Bytes that an envelope and the announcement's fixed fields add to an inline body and relayed messages, rounded up."""
NOTHING: Digest = bytes(32)
"""The body digest of an announcement without rollouts: a node that made none may still have messages to relay."""
INTRODUCTION_LIMIT = 3072
"""Bytes of a new node's delegation and of the statement that binds it to an RSA identity."""


class Malformed(ValueError):  # noqa: N818 - reads as what the message is
    """Bytes from a peer are too large or do not decode; `code` is the reason counted in metrics."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class Announcement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A peer's single message of a stage: which rollouts it made. `inline` is the body itself if it is small.

    Without rollouts, `size` is 0 and `body` is `NOTHING`. `relays` says that the peer has funds and will submit other
    peers' messages in this stage; `attached` are its own messages for relayers. The relayer that submits them checks
    them.
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
    attached: AttachedMessages = ()


class BoundAnnouncement(Announcement, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """An announcement of a peer with an RSA identity: `session` binds the key that signs it. Always has every field."""

    session: SessionStatement


class BoundDelegation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="bound"):
    """How a new node with an RSA identity introduces itself: its delegation, and the statement that binds it."""

    delegation: SignedDelegation
    session: SessionStatement


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An encoded announcement and the sender's recoverable secp256k1 signature (r, s, v: 65 bytes, v in {0, 1})."""

    payload: bytes
    signature: bytes


class Versioned(msgspec.Struct, frozen=True, array_like=True):
    """What every version of an announcement begins with: read before anything that a later version may change."""

    version: int


class NewerVersion(Malformed):
    """An announcement of a later protocol version, signed like any other; what it says is not known here."""

    def __init__(self, envelope: Envelope, version: int) -> None:
        super().__init__("version", f"version {version}, this node speaks {PROTOCOL_VERSION}")
        self.envelope, self.version = envelope, version


class Completion(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One sampled answer.

    `tokens` holds the sampled ids as little-endian uint32, including the end token. `logps` holds the behaviour
    log-probabilities of the tokens as little-endian float32. `finished` is False if the length limit cut it off.
    """

    text: str
    tokens: bytes
    logps: bytes
    finished: bool


class Group(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All completions of one question: `slot` is its index in the sender's assignment, `question` that in the data."""

    slot: int
    question: int
    completions: tuple[Completion, ...]


class Rollouts(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body: every group that a peer made in a stage. `tokenizer` is the fingerprint of the ids in it.

    `quoted` are the bodies of earlier stages that its prompts quote: with them every receiver has the same prompts.
    In a game whose stages quote earlier ones, `seed` is the round's, so that nobody quotes answers to another round's
    questions. In a game in which all peers have the same questions, `author` is the peer's address, so that no other
    peer can announce the body. Both are empty otherwise.
    """

    round: int
    stage: int
    tokenizer: Digest
    groups: tuple[Group, ...]
    quoted: tuple[Digest, ...] = ()
    seed: Seed = b""
    author: Address = ""


class Quoting(msgspec.Struct, frozen=True, array_like=True):
    """The digests that `Rollouts` quote, read without decoding the groups."""

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
"""MessagePack's header of an array of this length: the two kinds of announcement differ in their number of fields."""
_introductions: msgspec.msgpack.Decoder[SignedDelegation | BoundDelegation] = msgspec.msgpack.Decoder(
    SignedDelegation | BoundDelegation
)
_versioned = msgspec.msgpack.Decoder(Versioned)
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
    """Decode gossip bytes of at most `limit` bytes.

    Raises `Malformed` with codes size, schema, version or digest; `NewerVersion` before the strict decoding, which no
    announcement with new fields would pass. An envelope is the same in all versions.
    """
    if len(data) > limit:
        raise Malformed("size", f"{len(data)} bytes, limit {limit}")
    try:
        envelope = _envelopes.decode(data)
        version = _versioned.decode(envelope.payload).version
        if version > PROTOCOL_VERSION:
            raise NewerVersion(envelope, version)
        bound = envelope.payload.startswith(_BOUND_HEAD)
        announcement = (_bound_announcements if bound else _announcements).decode(envelope.payload)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed("schema", str(error)) from error
    problem = _shape_problem(envelope, announcement)
    if problem:
        raise Malformed(*problem)
    return envelope, announcement


def _shape_problem(envelope: Envelope, announcement: Announcement) -> tuple[str, str] | None:
    """Return code and detail of the first fixed-size field that is wrong."""
    if announcement.version != PROTOCOL_VERSION:
        return "version", f"version {announcement.version}, this node speaks {PROTOCOL_VERSION}"
    if len(envelope.signature) != 65 or any(
        len(field) != 32 for field in (announcement.swarm, announcement.seed, announcement.body)
    ):
        return "schema", "a signature has 65 bytes, digests and seeds have 32"
    if announcement.round < 0 or announcement.stage < 0 or announcement.size < 0:
        return "schema", "round, stage and size are not negative"
    if (announcement.size == 0) != (announcement.body == NOTHING):
        return "schema", "a body is not empty, and no body has no digest"
    if announcement.inline and (
        len(announcement.inline) != announcement.size or body_digest(announcement.inline) != announcement.body
    ):
        return "digest", "the inline body is not the announced one"
    return None


def fork_digest(manifest_digest: bytes, version: int = PROTOCOL_VERSION) -> str:
    """Return the rules' short name: four bytes of BLAKE2b of protocol version and manifest digest, in hexadecimal.

    As in Ethereum's consensus specs it is part of the topic, so that peers with other rules do not meet.
    """
    rules = version.to_bytes(4, "big") + manifest_digest
    return hashlib.blake2b(rules, digest_size=4, person=b"swarm-fork").hexdigest()


def announcements_topic(swarm: Digest, manifest_digest: bytes, version: int = PROTOCOL_VERSION) -> str:
    """Return the name of the topic on which the peers of a swarm with these rules announce their rollouts."""
    return f"/swarm/{swarm.hex()}/{fork_digest(manifest_digest, version)}/announcements"


def decode_introduction(data: bytes) -> SignedDelegation | BoundDelegation:
    """Decode a new node's delegation. Raises `Malformed` with codes size or schema."""
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
    """Return what a body quotes, None if the bytes are not a body. Groups are skipped, not decoded."""
    try:
        return _quotings.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def quoted_in(body: bytes) -> tuple[Digest, ...]:
    """Return the digests that a body quotes, none if the bytes are not a body."""
    found = quoting_of(body)
    return found.quoted if found else ()
