"""Everything this node ever signed, on disk before it is signed.

A node must never sign two different votes for one round, whatever crashes in between. The record is in a separate file,
so that the journal can be moved away without losing it, and is part of a backup of the key. It is written with
synchronous=EXTRA and a rollback journal: when `admit` returns, the record survives a power cut.

A record applies to one deployment of the contract and one seed. Another chain, or a reorg that gives the round another
seed, does not block an honest vote.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from node.store.database import open_database, refusing, transaction
from node.store.lock import FileLock
from node.vote_protection.interchange import ANYWHERE, SignedRecord, contradictions, missing
from protocols.identifiers import Digest, Seed

MIGRATIONS = (
    """
    CREATE TABLE signed (
        kind TEXT NOT NULL, round INTEGER NOT NULL, seed BLOB NOT NULL, payload BLOB NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (kind, round, seed)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE records (
        round INTEGER NOT NULL, kind TEXT NOT NULL, seed BLOB NOT NULL, deployment BLOB NOT NULL,
        payload BLOB NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (round, kind, seed, deployment)
    ) WITHOUT ROWID;
    INSERT INTO records SELECT round, kind, seed, x'', payload, at FROM signed;
    DROP TABLE signed
    """,
)
PRAGMAS = ("busy_timeout = 500", "journal_mode = DELETE", "synchronous = EXTRA", "locking_mode = EXCLUSIVE")
ADVICE = "restore it from a backup; without it this key must not vote in a round it may have voted in"


class VoteProtection:
    """Implements `node.ports.votes.VoteGuard`. Only one process at a time may open the file."""

    def __init__(self, path: Path, deployment: Digest = ANYWHERE) -> None:
        """Open or create. Raises `Refusal` if another process uses the file (naming it) or it can't be used."""
        self.path = path
        self._deployment = deployment
        self._lock = FileLock(
            path.with_name(path.name + ".lock"), f"the vote protection {path}", "stop that node first"
        )
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            self._lock.sign()
            self._connection = open_database(path, PRAGMAS, MIGRATIONS, ADVICE)
            opened.callback(self._connection.close)
            self._take()
            opened.pop_all()

    def _take(self) -> None:
        """Lock the file now and permanently: another reader is noticed at the start, not at the first vote."""
        with refusing(self.path, "close the program that has it open"):
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute("COMMIT")

    def bind(self, deployment: Digest) -> None:
        """Set the deployment (`protocols.identifiers.swarm_id`) of all later records."""
        self._deployment = deployment

    def admit(self, kind: str, round_number: int, seed: Seed, payload: bytes) -> bool:
        """Return True if `payload` may be signed: nothing else is recorded for (kind, round, seed) in this deployment.

        The record is durable when this returns. Raises sqlite3.Error if it can't be made durable; then don't sign.
        """
        with transaction(self._connection):
            earlier = self._payloads(kind, round_number, seed)
            if not earlier:
                self._insert(SignedRecord(self._deployment, kind, round_number, seed, payload, time.time()))
        return earlier <= {payload}

    def _payloads(self, kind: str, round_number: int, seed: Seed) -> set[bytes]:
        """Return the payloads recorded for this deployment, or for an unknown one."""
        rows = self._connection.execute(
            "SELECT payload FROM records WHERE round = ? AND kind = ? AND seed = ? AND deployment IN (?, x'')",
            (round_number, kind, seed, self._deployment),
        )
        return {bytes(row[0]) for row in rows}

    def _insert(self, signed: SignedRecord) -> None:
        row = (signed.round, signed.kind, signed.seed, signed.deployment, signed.payload, signed.at)
        self._connection.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", row)

    def history(self) -> tuple[SignedRecord, ...]:
        """Return everything ever admitted, oldest round first."""
        rows = self._connection.execute(
            "SELECT deployment, kind, round, seed, payload, at FROM records ORDER BY round, kind, seed, deployment"
        )
        return tuple(SignedRecord(*row) for row in rows)

    def merge(self, given: tuple[SignedRecord, ...]) -> tuple[tuple[SignedRecord, ...], tuple[SignedRecord, ...]]:
        """Import another machine's records, all or nothing; return those added and those that contradict.

        Nothing is ever deleted or replaced: if both have a record, the local one stays.
        """
        with transaction(self._connection):
            known = self.history()
            added = missing(known, given)
            for signed in added:
                self._insert(signed)
        return added, contradictions(known, given)

    def close(self) -> None:
        """Close the file and release the lock."""
        try:
            self._connection.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
