"""The vote protection: what this node ever signed, on disk before it is signed.

A node must not sign two different votes for one round, whatever crashes between. Its record stands in a file of its
own, so that the journal may be moved away without forgetting it, and travels with the key in a backup. It is written
with synchronous=EXTRA and a rollback journal: when `admit` returns, the record survives a power cut.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from node.store.database import open_database, transaction
from node.store.lock import FileLock
from protocols.identifiers import Seed

MIGRATIONS = (
    """
    CREATE TABLE signed (
        kind TEXT NOT NULL, round INTEGER NOT NULL, seed BLOB NOT NULL, payload BLOB NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (kind, round, seed)
    ) WITHOUT ROWID
    """,
)
PRAGMAS = ("journal_mode = DELETE", "synchronous = EXTRA", "locking_mode = EXCLUSIVE")
ADVICE = "restore it from a backup; without it this key must not vote in a round it may have voted in"


class VoteProtection:
    """Implements `node.seams.VoteGuard`. One process at a time may have it open."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises `Refusal` where another process has it (naming it) or the file can't be used."""
        self.path = path
        self._lock = FileLock(
            path.with_name(path.name + ".lock"), f"the vote protection {path}", "stop that node first"
        )
        try:
            self._connection = open_database(path, PRAGMAS, MIGRATIONS, ADVICE)
        except BaseException:
            self._lock.release()
            raise

    def admit(self, kind: str, round_number: int, seed: Seed, payload: bytes) -> bool:
        """Tell whether `payload` may be signed: nothing, or the same bytes, stand for (kind, round, seed).

        Durable when it returns. Raises sqlite3.Error where it can't be made durable; then nothing may be signed.
        """
        with transaction(self._connection):
            earlier = self._payload(kind, round_number, seed)
            if earlier is None:
                self._connection.execute(
                    "INSERT INTO signed VALUES (?, ?, ?, ?, ?)", (kind, round_number, seed, payload, time.time())
                )
        return earlier is None or earlier == payload

    def _payload(self, kind: str, round_number: int, seed: Seed) -> bytes | None:
        row = self._connection.execute(
            "SELECT payload FROM signed WHERE kind = ? AND round = ? AND seed = ?", (kind, round_number, seed)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def history(self) -> list[tuple[str, int, bytes, bytes]]:
        """Return everything ever admitted as (kind, round, seed, payload), the oldest round first."""
        rows: list[tuple[str, int, bytes, bytes]] = self._connection.execute(
            "SELECT kind, round, seed, payload FROM signed ORDER BY round, kind, seed"
        ).fetchall()
        return rows

    def close(self) -> None:
        """Close the file and give the lock up."""
        try:
            self._connection.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
