"""The published interchange format of vote histories (docs/vote-protection.md). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.identifiers import Address, Digest, Seed

FORMAT = "swarm-vote-protection"
VERSION = 2
"""Version 1 had no stages, and so no announcements; it is still read."""

ANNOUNCEMENT = "announce"
"""The kind of records of announced bodies; the payload is the body's digest. All other kinds are votes."""

ANYWHERE: Digest = b""
"""The deployment of records made before deployments were recorded: they apply to every deployment."""


class SignedRecord(msgspec.Struct, frozen=True):
    """Something this identity signed. `deployment` is the swarm's id (32 bytes, or `ANYWHERE`); `payload` depends on
    the kind; `at` is Unix seconds; `stage` is 0 for whatever there is once a round."""

    deployment: Digest
    kind: str
    round: int
    seed: Seed
    payload: bytes
    at: float
    stage: int = 0

    @property
    def place(self) -> tuple[Digest, str, int, int, Seed]:
        """The place: at most one payload is ever signed for it."""
        return self.deployment, self.kind, self.round, self.stage, self.seed


class SignedHistory(msgspec.Struct, frozen=True):
    """Everything that the node key with this address signed."""

    node: Address
    signed: tuple[SignedRecord, ...]


Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$")]
Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class InterchangeEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A record in the file."""

    deployment: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
    kind: Annotated[str, Meta(pattern="^[a-z]{1,16}$")]
    round: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    seed: Hex32
    payload: Hex
    at: float
    stage: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)] = 0


class InterchangeDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    format: Literal["swarm-vote-protection"]
    version: Literal[1, 2]
    node: Annotated[str, Meta(pattern="^0x[0-9a-f]{40}$")]
    signed: tuple[InterchangeEntry, ...]


def encode_history(history: SignedHistory) -> bytes:
    """Return the file's content: JSON, one record per line, sorted, so that equal histories give equal files."""
    head = msgspec.json.encode({"format": FORMAT, "version": VERSION, "node": history.node})[:-1]
    lines = [msgspec.json.encode(_entry(each)) for each in sorted(history.signed, key=_order)]
    return head + b',"signed":[\n' + b",\n".join(lines) + b"\n]}\n"


def decode_history(content: bytes) -> SignedHistory:
    """Decode a file's content. Raises ValueError if it is malformed or has two records for one place."""
    found = msgspec.json.decode(content, type=InterchangeDocument)
    signed = tuple(_signed(entry) for entry in found.signed)
    if len({each.place for each in signed}) != len(signed):
        raise ValueError("two records for one deployment, kind, round, stage and seed")
    for each in signed:
        _check_stage(found.version, each)
    return SignedHistory(found.node, signed)


def _check_stage(version: int, signed: SignedRecord) -> None:
    if signed.kind == ANNOUNCEMENT and (version == 1 or len(signed.payload) != 32):
        raise ValueError("an announcement has a digest of 32 bytes, in version 2")
    if signed.kind != ANNOUNCEMENT and signed.stage:
        raise ValueError(f"a record of kind {signed.kind} has no stage")


def missing(known: Sequence[SignedRecord], given: Sequence[SignedRecord]) -> tuple[SignedRecord, ...]:
    """Return the given records for places without a known record."""
    places = {each.place for each in known}
    return tuple(each for each in given if each.place not in places)


def contradictions(known: Sequence[SignedRecord], given: Sequence[SignedRecord]) -> tuple[SignedRecord, ...]:
    """Return the given records that contradict known ones: the key signed twice, or one history is not its own."""
    payloads = {each.place: each.payload for each in known}
    return tuple(each for each in given if payloads.get(each.place, each.payload) != each.payload)


def _order(signed: SignedRecord) -> tuple[int, str, int, bytes, bytes]:
    return signed.round, signed.kind, signed.stage, signed.seed, signed.deployment


def _entry(signed: SignedRecord) -> InterchangeEntry:
    return InterchangeEntry(
        signed.deployment.hex(), signed.kind, signed.round, signed.seed.hex(), signed.payload.hex(), signed.at,
        signed.stage,
    )  # fmt: skip


def _signed(entry: InterchangeEntry) -> SignedRecord:
    return SignedRecord(
        bytes.fromhex(entry.deployment),
        entry.kind,
        entry.round,
        bytes.fromhex(entry.seed),
        bytes.fromhex(entry.payload),
        entry.at,
        entry.stage,
    )
