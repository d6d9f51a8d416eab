"""What whoever signs asks of the vote protection."""

from __future__ import annotations

from typing import Protocol

from protocols.identifiers import Seed


class VoteGuard(Protocol):
    """The vote protection: what this identity ever signed, on disk before it is signed."""

    def admit(self, kind: str, round_number: int, seed: Seed, payload: bytes) -> bool:
        """Return True if `payload` may be signed as this round's `kind` ("commit", "reveal", "vote").

        That is so if nothing was signed for (kind, round, seed) before, or exactly the same bytes. The record is
        durable when this returns.
        """
