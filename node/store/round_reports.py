"""Reports of the last rounds (`node.machine.round_report`), for `swarm explain`.

The node writes them; commands read them meanwhile. Each write is atomic and may be repeated. Like the journal's, a
write that has returned survives any end of the process.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import structlog

from node.exits import Exit, Refusal
from node.machine.round_report import RoundReport, with_vote
from node.machine.state import VoteRecord
from node.store.database import move_aside, open_database, reading, refusing, transaction
from protocols.identifiers import Address, Seed

log = structlog.get_logger()

FILE = "rounds.sqlite"
KEPT = 512
"""Newest rounds that are kept."""
SEARCHED = 16
"""Newest rounds that are searched for the last one with a vote."""

MIGRATIONS = ("CREATE TABLE rounds (round INTEGER PRIMARY KEY, seed BLOB NOT NULL, report BLOB NOT NULL) STRICT",)
PRAGMAS = ("journal_mode = WAL", "synchronous = NORMAL")
ADVICE = "move it away to start afresh: it only explains past rounds"

_decoder = msgspec.msgpack.Decoder(RoundReport)


class RoundStore:
    """The writer's side. One thread, one process."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises `Refusal` if the file is damaged, from a newer version, or not accessible."""
        self.path = path
        self._db = open_database(path, PRAGMAS, MIGRATIONS, ADVICE)

    def known(self) -> dict[int, Seed]:
        """Return the stored rounds, each with the seed under which it was ranked. Raises `Refusal`."""
        with refusing(self.path, ADVICE):
            return {number: bytes(seed) for number, seed in self._db.execute("SELECT round, seed FROM rounds")}

    def put(self, report: RoundReport) -> None:
        """Store a report, replacing one under another seed; drop the oldest. Raises `Refusal`: disk full."""
        with refusing(self.path, "mend the disk"), transaction(self._db):
            row = (report.round, report.seed, msgspec.msgpack.encode(report))
            self._db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", row)
            self._db.execute(
                "DELETE FROM rounds WHERE round <= (SELECT round FROM rounds ORDER BY round DESC LIMIT 1 OFFSET ?)",
                (KEPT,),
            )

    def put_vote(self, vote: VoteRecord) -> None:
        """Update the vote in its round's report; do nothing if that round is not kept. Raises `Refusal`."""
        with refusing(self.path, ADVICE):
            query = "SELECT report FROM rounds WHERE round = ? AND seed = ?"
            rows = self._db.execute(query, (vote.round, vote.seed)).fetchall()
        for (stored,) in rows:
            report = _decoded(self.path, stored)
            if report.vote != vote:
                self.put(with_vote(report, vote))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def open_round_store(path: Path) -> RoundStore:
    """Open or create the reports. A file that is damaged or from a newer version is moved aside: it only explains past
    rounds, and must not keep the node from playing. Raises `Refusal` if the file is not accessible."""
    try:
        return RoundStore(path)
    except Refusal as refused:
        if isinstance(refused.__cause__, sqlite3.OperationalError):
            raise
        reason = str(refused)
    try:
        aside = move_aside(path, "damaged")
    except OSError as error:
        raise Refusal(Exit.STORE, f"cannot move {path} aside: {error.strerror}; check path and owner") from error
    log.warning("rounds.moved_aside", path=str(path), to=str(aside), reason=reason)
    return RoundStore(path)


def _decoded(path: Path, stored: bytes) -> RoundReport:
    try:
        return _decoder.decode(stored)
    except ValueError as error:
        raise Refusal(Exit.STORE, f"{path}: a round can't be read ({error}); {ADVICE}") from error


def kept_rounds(path: Path) -> list[int]:
    """Return the rounds in a file, ascending; none if there is no file. Raises `Refusal`."""
    if not path.exists():
        return []
    with reading(path, len(MIGRATIONS), ADVICE) as db:
        return [number for (number,) in db.execute("SELECT round FROM rounds ORDER BY round")]


def read_round(path: Path, number: int | None = None) -> RoundReport | None:
    """Return a round's report. Without a number: the last one whose vote is done, else with a vote, else the last one.

    None if there is none. Raises `Refusal` if the file can't be read.
    """
    if not path.exists():
        return None
    with reading(path, len(MIGRATIONS), ADVICE) as db:
        if number is not None:
            rows = db.execute("SELECT report FROM rounds WHERE round = ?", (number,)).fetchall()
            return _decoded(path, rows[0][0]) if rows else None
        stored = db.execute("SELECT report FROM rounds ORDER BY round DESC LIMIT ?", (SEARCHED,)).fetchall()
    reports = [_decoded(path, report) for (report,) in stored]
    voted = [report for report in reports if report.vote]
    done = [report for report in voted if report.vote and report.vote.phase == "done"]
    return next(iter([*done, *voted, *reports]), None)


def recent_peer_ids(path: Path, rounds: int = SEARCHED) -> dict[Address, str]:
    """Return the peer ids in the last reports, by address; the newest report wins. Raises `Refusal`."""
    found: dict[Address, str] = {}
    for number in kept_rounds(path)[-rounds:]:
        report = read_round(path, number)
        entries = report.entries if report else ()
        found |= {entry.peer: entry.peer_id for entry in entries if entry.peer_id}
    return found
