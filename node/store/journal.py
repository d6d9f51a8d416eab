"""The journal: every input on disk before the machine sees it, and snapshots of the state.

Guarantee: an input whose `append` has returned survives any end of the process (kill -9, out of memory). After a power
cut or a crash of the operating system the journal is a prefix of what was written and may lack the last inputs (SQLite
in WAL mode with synchronous=NORMAL: an fsync per input would block the loop for milliseconds each time). Nothing
irreplaceable depends on those. Signatures are in the vote protection and transactions in the outbox, both synced before
they return; everything else comes again from chain and peers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from node.exits import Exit, Refusal
from node.machine.inputs import Stamped
from node.store.database import open_database, refusing, transaction

SNAPSHOTS_KEPT = 2
"""The newest snapshot, and the one before it in case the newest is unreadable."""

MIGRATIONS = (
    """
    CREATE TABLE inputs (sequence INTEGER PRIMARY KEY AUTOINCREMENT, stamped BLOB NOT NULL);
    CREATE TABLE snapshots (sequence INTEGER PRIMARY KEY, saved REAL NOT NULL, state BLOB NOT NULL)
    """,
)
PRAGMAS = ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 1000", "journal_size_limit = 16777216")
ADVICE = "move it away to start afresh (votes are protected in votes.sqlite, which must stay)"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Stamped)


class Journal:
    """The journal of one node. Not for use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises `Refusal` if the file is damaged, from a newer version, or not accessible."""
        self.path = path
        self._connection = open_database(path, PRAGMAS, MIGRATIONS, ADVICE)

    # --- inputs -------------------------------------------------------------------------------------------------

    def append(self, stamped: Stamped) -> int:
        """Store an input; return its sequence number, which only grows. Raises `Refusal`: disk full."""
        with refusing(self.path, "mend the disk, then start again"):
            cursor = self._connection.execute("INSERT INTO inputs (stamped) VALUES (?)", (_encoder.encode(stamped),))
        return int(cursor.lastrowid or 0)

    def append_many(self, stamped: Iterable[Stamped]) -> int:
        """Store inputs, all or none; return the last sequence number, 0 for an empty journal."""
        rows = [(_encoder.encode(each),) for each in stamped]
        with (
            refusing(self.path, "mend the disk, then start again"),
            transaction(self._connection),
        ):
            self._connection.executemany("INSERT INTO inputs (stamped) VALUES (?)", rows)
        return self.last_sequence()

    def last_sequence(self) -> int:
        """Return the sequence number of the newest input ever stored, 0 if there was none."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'inputs'").fetchone()
        return int(row[0]) if row else 0

    def since(self, sequence: int) -> list[tuple[int, Stamped]]:
        """Return the inputs after `sequence`, in order. Raises `Refusal` for one that can't be decoded."""
        with refusing(self.path, ADVICE):
            rows = self._connection.execute(
                "SELECT sequence, stamped FROM inputs WHERE sequence > ? ORDER BY sequence", (sequence,)
            ).fetchall()
        return [(number, self._decoded(number, stored)) for number, stored in rows]

    def _decoded(self, number: int, stored: bytes) -> Stamped:
        try:
            return _decoder.decode(stored)
        except ValueError as error:
            raise Refusal(Exit.STORE, f"{self.path}: input {number} can't be read ({error}); {ADVICE}") from error

    # --- snapshots ----------------------------------------------------------------------------------------------

    def save_snapshot(self, sequence: int, snapshot: bytes) -> None:
        """Store the state after `sequence`; delete all snapshots but the last two, and the inputs that they include."""
        with (
            refusing(self.path, "mend the disk, then start again"),
            transaction(self._connection),
        ):
            self._connection.execute(
                "INSERT OR REPLACE INTO snapshots (sequence, saved, state) VALUES (?, ?, ?)",
                (sequence, time.time(), snapshot),
            )
            self._prune()

    def _prune(self) -> None:
        kept = self._connection.execute(
            "SELECT sequence FROM snapshots ORDER BY sequence DESC LIMIT ?", (SNAPSHOTS_KEPT,)
        ).fetchall()
        if len(kept) == SNAPSHOTS_KEPT:
            oldest = kept[-1]
            self._connection.execute("DELETE FROM snapshots WHERE sequence < ?", oldest)
            self._connection.execute("DELETE FROM inputs WHERE sequence <= ?", oldest)

    def latest_snapshot(self) -> tuple[int, bytes] | None:
        """Return the newest snapshot and the last sequence number it includes, None if there is none."""
        found = self.snapshots()
        return found[0] if found else None

    def snapshots(self) -> list[tuple[int, bytes]]:
        """Return the stored snapshots, newest first; every input after the oldest of them is stored too."""
        with refusing(self.path, ADVICE):
            return self._connection.execute("SELECT sequence, state FROM snapshots ORDER BY sequence DESC").fetchall()

    # --- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
