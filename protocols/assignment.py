"""Which questions a peer answers: derived from data, seed, peer, stage and slot, never received."""

from __future__ import annotations

import hashlib

from protocols.identifiers import Address, Digest, Seed


def assigned_question(data: Digest, seed: Seed, peer: Address, stage: int, slot: int, size: int) -> int:
    """Return the index in [0, size) of the question that `peer` answers in `slot` of a stage.

    64 bits of BLAKE2b reduced modulo `size`: the bias is below size / 2**64. Raises ValueError for an empty set.
    """
    if size <= 0:
        raise ValueError("there is no question to assign in an empty data set")
    key = data + seed + bytes.fromhex(peer[2:]) + stage.to_bytes(4, "big") + slot.to_bytes(4, "big")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"swarm-assign").digest(), "big") % size


def assignment(data: Digest, seed: Seed, peer: Address, stage: int, slots: int, size: int) -> tuple[int, ...]:
    """Return the questions of slots 0 to `slots` - 1."""
    return tuple(assigned_question(data, seed, peer, stage, slot, size) for slot in range(slots))
