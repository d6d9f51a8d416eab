"""Which questions a peer answers: derived from data, seed, peer, stage and slot, never received."""

from __future__ import annotations

import hashlib

from protocols.identifiers import Address, Digest, Seed

EVERYBODY: Address = "0x" + "0" * 40
"""The peer in whose name common questions are drawn; nobody has a key to this address."""


def assigned_question(
    data: Digest, seed: Seed, peer: Address, stage: int, slot: int, size: int, common: int = 0
) -> int:
    """Return the index in [0, size) of the question that `peer` answers in `slot` of a stage.

    The first `common` slots hold the same questions for all peers. 64 bits of BLAKE2b reduced modulo `size`: the bias
    is below size / 2**64. Raises ValueError for an empty set.
    """
    if size <= 0:
        raise ValueError("there is no question to assign in an empty data set")
    whose = EVERYBODY if slot < common else peer
    key = data + seed + bytes.fromhex(whose[2:]) + stage.to_bytes(4, "big") + slot.to_bytes(4, "big")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"swarm-assign").digest(), "big") % size


def assignment(
    data: Digest, seed: Seed, peer: Address, stage: int, slots: int, size: int, common: int = 0
) -> tuple[int, ...]:
    """Return the questions of slots 0 to `slots` - 1; the first `common` of them are common questions."""
    return tuple(assigned_question(data, seed, peer, stage, slot, size, common) for slot in range(slots))
