"""Accounts of the last rounds (`node.machine.round_report`), for `swarm explain`: written by the node, read beside it.

Each write is whole and may be repeated. Like the journal's, one that has returned survives any end of the process.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from node.exits import Exit, Refusal
from node.machine.round_report import RoundReport, with_vote
from node.machine.state import VoteRecord
from node.store.database import open_database, reading, refusing, transaction
from protocols.identifiers import Address, Seed

FILE = "rounds.sqlite"
KEPT = 512
"""Rounds kept, the newest ones."""
LOOKED_AT = 16
"""Rounds among which the last one with a vote is looked for."""

MIGRATIONS = ("CREATE TABLE rounds (round INTEGER PRIMARY KEY, seed BLOB NOT NULL, account BLOB NOT NULL) STRICT",)
PRAGMAS = ("journal_mode = WAL", "synchronous = NORMAL")
ADVICE = "move it away to begin afresh: it only explains rounds that are over"

_decoder = msgspec.msgpack.Decoder(RoundReport)


class RoundStore:
    """The writer's side. One thread, one process."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises `Refusal` if the file is damaged, from a newer version, or not accessible."""
        self.path = path
        self._db = open_database(path, PRAGMAS, MIGRATIONS, ADVICE)

    def known(self) -> dict[int, Seed]:
        """Return the rounds that are kept, each with the seed that it was ranked under."""
        return {number: bytes(seed) for number, seed in self._db.execute("SELECT round, seed FROM rounds")}

    def put(self, account: RoundReport) -> None:
        """Keep a round, in place of one under another seed; the oldest goes. Raises `Refusal`: disk full."""
        with refusing(self.path, "free disk space or mend the disk"), transaction(self._db):
            row = (account.round, account.seed, msgspec.msgpack.encode(account))
            self._db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", row)
            self._db.execute(
                "DELETE FROM rounds WHERE round <= (SELECT round FROM rounds ORDER BY round DESC LIMIT 1 OFFSET ?)",
                (KEPT,),
            )

    def put_vote(self, vote: VoteRecord) -> None:
        """Write into its round what has become of a vote; nothing if that round is not kept. Raises `Refusal`."""
        with refusing(self.path, ADVICE):
            query = "SELECT account FROM rounds WHERE round = ? AND seed = ?"
            rows = self._db.execute(query, (vote.round, vote.seed)).fetchall()
        for (stored,) in rows:
            account = _decoded(self.path, stored)
            if account.vote != vote:
                self.put(with_vote(account, vote))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _decoded(path: Path, stored: bytes) -> RoundReport:
    try:
        return _decoder.decode(stored)
    except ValueError as error:
        raise Refusal(Exit.STORE, f"{path}: a round can't be read ({error}); {ADVICE}") from error


def kept_rounds(path: Path) -> list[int]:
    """Return the rounds that a file keeps, ascending; none if there is no file. Raises `Refusal`."""
    if not path.exists():
        return []
    with reading(path, len(MIGRATIONS), ADVICE) as db:
        return [number for (number,) in db.execute("SELECT round FROM rounds ORDER BY round")]


def read_round(path: Path, number: int | None = None) -> RoundReport | None:
    """Return a round's account; without a number the last one whose vote is done, else with a vote, else the last one.

    None if there is none. Raises `Refusal` if the file can't be read.
    """
    if not path.exists():
        return None
    with reading(path, len(MIGRATIONS), ADVICE) as db:
        if number is not None:
            rows = db.execute("SELECT account FROM rounds WHERE round = ?", (number,)).fetchall()
            return _decoded(path, rows[0][0]) if rows else None
        stored = db.execute("SELECT account FROM rounds ORDER BY round DESC LIMIT ?", (LOOKED_AT,)).fetchall()
    accounts = [_decoded(path, account) for (account,) in stored]
    voted = [account for account in accounts if account.vote]
    done = [account for account in voted if account.vote and account.vote.phase == "done"]
    return next(iter([*done, *voted, *accounts]), None)


def recent_peer_ids(path: Path, rounds: int = LOOKED_AT) -> dict[Address, str]:
    """Return the peer ids that the last rounds tell, by address; the newest word counts. Raises `Refusal`."""
    found: dict[Address, str] = {}
    for number in kept_rounds(path)[-rounds:]:
        account = read_round(path, number)
        entries = account.entries if account else ()
        found |= {entry.peer: entry.peer_id for entry in entries if entry.peer_id}
    return found
