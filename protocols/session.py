"""The statement by which a peer with an RSA identity of RL Swarm binds its session key.

The RSA key determines the peer id; the session key (secp256k1) signs everything else. The statement is part of what the
session key signs, so neither key can speak for the other without its consent. Every receiver checks it
(`node.identity.rsa.bound_peer`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocols.identifiers import Address
from protocols.typed_data import Domain

PURPOSE = b"swarm/session/1"
MAX_PUBLIC_KEY, MAX_SIGNATURE = 600, 512
"""Bytes of a 4096-bit key's protobuf, rounded up, and of its signature."""


class SessionStatement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`public_key` is the RSA key as libp2p's protobuf, whose hash is the peer id; `signature` is PKCS #1 v1.5 with
    SHA-256 over `statement_bytes`, as libp2p signs with RSA keys."""

    public_key: Annotated[bytes, Meta(max_length=MAX_PUBLIC_KEY)]
    signature: Annotated[bytes, Meta(max_length=MAX_SIGNATURE)]


def statement_bytes(domain: Domain, session: Address) -> bytes:
    """Return what the RSA key signs: that `session` speaks for it at one deployment and nowhere else."""
    place = domain.chain_id.to_bytes(32, "big") + bytes.fromhex(domain.contract[2:]) + domain.salt
    return PURPOSE + place + bytes.fromhex(session[2:])
