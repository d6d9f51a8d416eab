"""The transaction queue on disk: records by key, settled or not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from node.store.database import open_database, reading, refusing

MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS outbox (
        key TEXT PRIMARY KEY,
        place INTEGER NOT NULL,
        unsettled INTEGER NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS outbox_place ON outbox (unsettled, place)
    """,
)
"""The first may find its table: files from before versions were counted have version 0."""
PRAGMAS = ("journal_mode = WAL", "synchronous = FULL")
ADVICE = "move it away to start afresh: transactions that are still needed are queued again"

KEPT = 10_000
"""Settled records kept: enough to answer any command that a journal's replay may repeat."""

PRUNE_EVERY = 256


class SqliteOutbox:
    """A durable map (`node.chain.transactions.tx_queue.OutboxStore`). One thread, one process."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises `Refusal` if the file is damaged, from a newer version, or not accessible."""
        self.path = path
        self._db = open_database(path, PRAGMAS, MIGRATIONS, ADVICE)
        self._writes = 0

    def put(self, key: str, record: bytes, *, unsettled: bool) -> None:
        """Store a record; an unsettled one keeps its place in the queue, a settled one moves to the end.

        Raises `Refusal`: disk full.
        """
        with refusing(self.path, "mend the disk, then start again"):
            self._put(key, record, unsettled)

    def _put(self, key: str, record: bytes, unsettled: bool) -> None:
        place = "(SELECT coalesce(max(place), 0) + 1 FROM outbox)"
        moved = "place" if unsettled else "excluded.place"
        self._db.execute(
            f"INSERT INTO outbox VALUES (?, {place}, ?, ?) ON CONFLICT (key) DO UPDATE SET "  # noqa: S608
            f"place = {moved}, unsettled = excluded.unsettled, record = excluded.record",
            (key, int(unsettled), record),
        )
        self._writes += 1
        if self._writes % PRUNE_EVERY == 0:
            self._prune()

    def get(self, key: str) -> bytes | None:
        """Return a record, None if there is none."""
        row = self._db.execute("SELECT record FROM outbox WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else None

    def unsettled(self) -> list[bytes]:
        """Return the unsettled records, in the order in which their keys were first stored."""
        rows = self._db.execute("SELECT record FROM outbox WHERE unsettled = 1 ORDER BY place")
        return [bytes(row[0]) for row in rows]

    def recent(self, count: int) -> list[bytes]:
        """Return the `count` most recently settled records, newest first."""
        query = "SELECT record FROM outbox WHERE unsettled = 0 ORDER BY place DESC LIMIT ?"
        return [bytes(row[0]) for row in self._db.execute(query, (count,))]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _prune(self) -> None:
        self._db.execute(
            "DELETE FROM outbox WHERE unsettled = 0 AND place < "
            "(SELECT place FROM outbox WHERE unsettled = 0 ORDER BY place DESC LIMIT 1 OFFSET ?)",
            (KEPT,),
        )


def read_records(path: Path, keys: Iterable[str]) -> dict[str, bytes]:
    """Return the records of these keys while a node may be writing the file; none if there is no file.

    Raises `Refusal` if it can't be read.
    """
    if not path.exists():
        return {}
    with reading(path, len(MIGRATIONS), ADVICE) as db:
        rows = [db.execute("SELECT key, record FROM outbox WHERE key = ?", (key,)).fetchone() for key in keys]
    return {str(row[0]): bytes(row[1]) for row in rows if row}
