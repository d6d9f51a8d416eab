"""Types of the byte strings that peers agree on, and the hashes that produce them."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from eth_hash.auto import keccak

Address: TypeAlias = str
"""A node's EVM address: "0x" and 40 lower-case hex digits. It identifies a peer everywhere."""

Digest: TypeAlias = bytes
"""32 bytes of BLAKE2b-256 over an encoded body or manifest."""

Seed: TypeAlias = bytes
"""32 bytes that the coordinator publishes when a round begins."""


def body_digest(body: bytes) -> Digest:
    """Return the 32-byte BLAKE2b-256 digest under which a body is announced and fetched."""
    return hashlib.blake2b(body, digest_size=32).digest()


def keccak256(data: bytes) -> bytes:
    """Return the 32-byte Keccak-256 hash that the EVM uses."""
    return bytes(keccak(data))


def address_of_public_key(uncompressed: bytes) -> Address:
    """Return the EVM address of a secp256k1 public key of 64 bytes (x and y, without the 0x04 prefix)."""
    if len(uncompressed) != 64:
        raise ValueError(f"a public key has 64 bytes without its prefix, got {len(uncompressed)}")
    return "0x" + keccak256(uncompressed)[12:].hex()


def swarm_id(chain_id: int, contract: Address, deployment_block_hash: bytes) -> Digest:
    """Return the 32 bytes that bind a message to one deployment, even if a local chain repeats addresses."""
    return body_digest(b"swarm/1" + chain_id.to_bytes(32, "big") + bytes.fromhex(contract[2:]) + deployment_block_hash)
