"""Bodies of rollouts: where they are kept, and how the check of one that a peer sent is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from protocols.identifiers import Address, Digest
from protocols.wire import Announcement


class Bodies(Protocol):
    """Bounded store of encoded rollouts by digest; survives a restart."""

    def get(self, digest: Digest) -> bytes | None:
        """Return the body, or None where it is not (or no longer) kept."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        """Keep a body, at the latest on disk when this returns; the oldest rounds go first.

        Raises OSError if it can't be kept: the disk is full or broken.
        """


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of a body says: `reason` is empty where it was accepted, else the code that is counted.

    `missing` are the quoted bodies without which it can't be checked, `alike` the peers whose body of the stage it
    repeats; `doubt` is a reason why one that was accepted earns no credit.
    """

    reason: str
    groups: int = 0
    reward: float = 0.0
    missing: tuple[Digest, ...] = ()
    alike: tuple[Address, ...] = ()
    doubt: str = ""


CheckBody = Callable[[Address, Announcement, bytes], Verdict]
"""Check a fetched body of `peer` against its announcement: digest, schema, assignment, completeness, reward."""
