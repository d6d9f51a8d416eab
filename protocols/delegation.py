"""When a delegation, which ties a node to its owner, adds something to what the register has."""

from __future__ import annotations

from protocols.typed_data import Delegation

FOR_EVER = 2**32 - 1
"""The contract's largest expiry, in chain seconds: whatever lies beyond it is kept as this."""


def renews(delegation: Delegation, serial: int, expiry: int) -> bool:
    """Return True if a delegation was signed later than the register's, and holds for longer.

    `serial` (milliseconds) and `expiry` (chain seconds) are the register's.
    """
    return delegation.serial > serial and delegation.expiry > expiry
