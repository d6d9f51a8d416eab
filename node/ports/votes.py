"""What whoever signs asks of the vote protection."""

from __future__ import annotations

from typing import Protocol

from protocols.identifiers import Digest, Seed


class VoteGuard(Protocol):
    """The vote protection: what this identity ever signed, on disk before it is signed."""

    def admit(self, kind: str, round_number: int, seed: Seed, payload: bytes) -> bool:
        """Return True if `payload` may be signed as this round's `kind` ("commit", "reveal", "vote").

        That is so if nothing was signed for (kind, round, seed) before, or exactly the same bytes. The record is
        durable when this returns.
        """


class AnnouncementRecord(Protocol):
    """The bodies that this identity ever announced, on disk before the announcement is signed."""

    def announced(self, round_number: int, stage: int, seed: Seed) -> Digest | None:
        """Return the digest of the body that was announced for a stage; None where none was."""

    def admit_announcement(self, round_number: int, stage: int, seed: Seed, body: Digest) -> Digest:
        """Return the digest of the one body that may be announced for a stage: `body`, unless there is an earlier one.

        The record is durable when this returns.
        """
