"""What ties a node to its owner: the delegation that both signed."""

from __future__ import annotations

import msgspec

from protocols.typed_data import Delegation

FOR_EVER = 2**32 - 1
"""The contract's largest expiry, in chain seconds: whatever lies beyond it is kept as this."""


class SignedDelegation(msgspec.Struct, frozen=True):
    """A delegation and the signatures under its digest, 65 bytes each; a contract wallet's may be of any length.

    Where owner and node are one key, both signatures are the same.
    """

    delegation: Delegation
    owner_signature: bytes
    node_signature: bytes


def renews(said: Delegation, serial: int, expiry: int) -> bool:
    """Tell whether a delegation is of use where the register has one with this serial (milliseconds) and this expiry
    (chain seconds): it was signed later, and holds for longer."""
    return said.serial > serial and said.expiry > expiry
