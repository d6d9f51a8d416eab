"""Sealed votes: the salt that survives a crash, and the commitment that is useless to others."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.identifiers import Address, Digest, Seed, keccak256

COMMIT_DOMAIN = keccak256(b"SwarmCoordinator.vote.1")

MAX_WINNERS = 16
"""The most winners that a vote may name in any contract."""


def vote_salt(secret: bytes, swarm: Digest, seed: Seed) -> bytes:
    """Return the 32-byte salt of a round's vote, derived from the node's 32-byte secret: the same after a crash."""
    return keccak256(b"swarm/vote-salt/1" + secret + swarm + seed)


def vote_commitment(round_number: int, seed: Seed, voter: Address, winners: Sequence[Address], salt: bytes) -> bytes:
    """Return keccak256(abi.encode(domain, round, seed, voter, keccak256(packed winners), salt)).

    Each value takes one 32-byte word; winners are left-padded addresses, as Solidity's `abi.encodePacked(address[])`.
    """
    packed = b"".join(_word(winner) for winner in winners)
    head = COMMIT_DOMAIN + round_number.to_bytes(32, "big") + seed + _word(voter)
    return keccak256(head + keccak256(packed) + salt)


def _word(address: Address) -> bytes:
    return bytes(12) + bytes.fromhex(address[2:])
