"""Everything this node ever signed, on disk before it is signed.

A node must never sign two different votes for one round, nor announce two bodies for one stage, whatever crashes in
between. The record is in a separate file, so that the journal can be moved away without losing it, and is part of a
backup of the key. It is written with synchronous=EXTRA and a rollback journal: when `admit` or `admit_announcement`
returns, the record survives a power cut.

A record applies to one deployment of the contract and one seed. Another chain, or a reorg that gives the round another
seed, does not block an honest vote.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from node.exits import Exit, Refusal
from node.store.database import open_database, refusing, transaction
from node.store.lock import FileLock
from node.store.restore_mark import STALE
from node.vote_protection.interchange import ANNOUNCEMENT, ANYWHERE, SignedRecord, contradictions, missing
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
    """
    CREATE TABLE announcements (
        sequence INTEGER PRIMARY KEY, deployment BLOB NOT NULL, round INTEGER NOT NULL, stage INTEGER NOT NULL,
        seed BLOB NOT NULL, body BLOB NOT NULL, at REAL NOT NULL,
        UNIQUE (deployment, round, stage, seed)
    )
    """,
)
ANNOUNCEMENTS_KEPT = 16_384
"""The newest announcements that are kept: no peer accepts one of so many stages ago. Votes are kept for ever."""
PRAGMAS = ("busy_timeout = 500", "journal_mode = DELETE", "synchronous = EXTRA", "locking_mode = EXCLUSIVE")
UNWRITABLE = "mend the disk; nothing is signed without a record"
LOST = (
    "restore it (swarm keys import-votes), or move journal.sqlite and outbox.sqlite away and create restored.json: the "
    "node then listens for a whole round before it signs"
)
ADVICE = "move it away and restore it from a backup or export (docs/vote-protection.md, section Lost)"


def is_lost(path: Path) -> bool:
    """Return True if a vote protection has no records though the node has run: it is missing, empty, or was never
    written. The first start writes it before journal and outbox."""
    return any(path.with_name(name).exists() for name in STALE) and not _is_written(path)


def _is_written(path: Path) -> bool:
    """Return True if a file has a schema: the user version in SQLite's header (https://sqlite.org/fileformat2.html),
    or whatever stands there in a damaged file."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # opening it says what is wrong
    return head[60:64] not in (b"", bytes(4))


def _how_lost(path: Path) -> str:
    return "empty" if path.exists() else "missing"


class VoteProtection:
    """Implements `node.ports.votes.VoteGuard` and `AnnouncementRecord`. One process at a time may open the file."""

    def __init__(
        self,
        path: Path,
        deployment: Digest = ANYWHERE,
        *,
        restoring: bool = False,
        announcements_kept: int = ANNOUNCEMENTS_KEPT,
    ) -> None:
        """Open or create. Raises `Refusal` if another process uses the file (naming it), it can't be used, or it was
        lost; whoever is `restoring` a lost one fills it at once, and marks the directory."""
        self.path = path
        self._deployment, self._announcements_kept = deployment, announcements_kept
        self._lock = FileLock(
            path.with_name(path.name + ".lock"), f"the vote protection {path}", "stop that node first"
        )
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            self._lock.sign()
            if is_lost(path) and not restoring:
                raise Refusal(Exit.STORE, f"{path} is {_how_lost(path)}, but this node has run before; {LOST}")
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

        The record is durable when this returns. Raises `Refusal` if it can't be made durable; then don't sign.
        """
        with refusing(self.path, UNWRITABLE), transaction(self._connection):
            earlier = self._payloads(kind, round_number, seed)
            if not earlier:
                self._insert(SignedRecord(self._deployment, kind, round_number, seed, payload, time.time()))
        return earlier <= {payload}

    def announced(self, round_number: int, stage: int, seed: Seed) -> Digest | None:
        """Return the digest of the body that was announced for this stage in this deployment; None where none was."""
        row = self._connection.execute(
            "SELECT body FROM announcements WHERE deployment IN (?, x'') AND round = ? AND stage = ? AND seed = ? "
            "ORDER BY sequence LIMIT 1",
            (self._deployment, round_number, stage, seed),
        ).fetchone()
        return bytes(row[0]) if row else None

    def admit_announcement(self, round_number: int, stage: int, seed: Seed, body: Digest) -> Digest:
        """Return the digest of the one body that may be announced for this stage: `body`, unless there is an earlier.

        The record is durable when this returns. Raises `Refusal` if it can't be made durable; then don't sign.
        """
        with refusing(self.path, UNWRITABLE), transaction(self._connection):
            earlier = self.announced(round_number, stage, seed)
            if earlier is None:
                self._insert_announcement(
                    SignedRecord(self._deployment, ANNOUNCEMENT, round_number, seed, body, time.time(), stage)
                )
                self._forget_old_announcements()
        return body if earlier is None else earlier

    def _forget_old_announcements(self) -> None:
        self._connection.execute(
            "DELETE FROM announcements WHERE sequence <= "
            "(SELECT sequence FROM announcements ORDER BY sequence DESC LIMIT 1 OFFSET ?)",
            (self._announcements_kept,),
        )

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

    def _insert_announcement(self, signed: SignedRecord, sequence: int | None = None) -> None:
        row = (sequence, signed.deployment, signed.round, signed.stage, signed.seed, signed.payload, signed.at)
        self._connection.execute("INSERT INTO announcements VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def history(self) -> tuple[SignedRecord, ...]:
        """Return everything admitted, oldest round first; of announcements only the newest."""
        rows = self._connection.execute(
            "SELECT deployment, kind, round, seed, payload, at, 0 AS stage FROM records "
            "UNION ALL SELECT deployment, ?, round, seed, body, at, stage FROM announcements "
            "ORDER BY round, kind, stage, seed, deployment",
            (ANNOUNCEMENT,),
        )
        return tuple(SignedRecord(*row) for row in rows)

    def merge(self, given: tuple[SignedRecord, ...]) -> tuple[tuple[SignedRecord, ...], tuple[SignedRecord, ...]]:
        """Import another machine's records, all or nothing; return those added and those that contradict.

        Nothing is deleted or replaced: if both have a record, the local one stays. Imported announcements count as
        older than the local ones.
        """
        with transaction(self._connection):
            known = self.history()
            added = missing(known, given)
            for signed in added:
                if signed.kind != ANNOUNCEMENT:
                    self._insert(signed)
            self._prepend(tuple(each for each in added if each.kind == ANNOUNCEMENT))
        return added, contradictions(known, given)

    def _prepend(self, announcements: tuple[SignedRecord, ...]) -> None:
        (first,) = self._connection.execute("SELECT coalesce(min(sequence), 0) FROM announcements").fetchone()
        newest_first = sorted(announcements, key=lambda signed: (signed.round, signed.stage), reverse=True)
        for number, signed in enumerate(newest_first, start=1):
            self._insert_announcement(signed, first - number)

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
