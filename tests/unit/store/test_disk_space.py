"""A node whose disk is full ends in one line with a code of its own, and goes on where there is space again."""

from __future__ import annotations

import errno
import json
import sqlite3

import pytest

from node.exits import Exit
from node.store.disk_space import exit_code_of, is_disk_full
from tests.support.small_disk import run_on_small_disk

FILES = """
import json, os, sys
from pathlib import Path
from node.exits import Refusal
from node.machine import inputs as i
from node.store.directory import DataDirectory
from node.store.journal import Journal
from node.store.outbox import SqliteOutbox
from node.store.round_reports import RoundStore
from node.vote_protection import VoteProtection

disk = Path(sys.argv[1])
home, filler, refused = disk / "node", disk / "filler", {}

def fill():
    with open(filler, "ab", 0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass

def until_refused(name, act):
    try:
        for number in range(5000):
            act(number)
    except Refusal as refusal:
        refused[name] = [int(refusal.code), str(refusal)]

directory = DataDirectory(home)
guard = VoteProtection(home / "votes.sqlite")
journal = Journal(home / "journal.sqlite")
outbox = SqliteOutbox(home / "outbox.sqlite")
fill()
until_refused("votes", lambda n: guard.admit("vote", n, bytes(32), bytes(500)))
until_refused("announcements", lambda n: guard.admit_announcement(n, 0, bytes(32), bytes(32)))
until_refused("journal", lambda n: journal.append(i.Stamped(1.0, i.TimerFired("x" * 500))))
until_refused("outbox", lambda n: outbox.put(str(n), bytes(500), unsettled=True))
until_refused("rounds", lambda n: RoundStore(home / "rounds.sqlite").close())
until_refused("another directory", lambda n: DataDirectory(disk / "other").close())
votes, inputs = len(guard.history()), len(journal.since(0))
for each in (guard, journal, outbox, directory):
    each.close()
filler.unlink()
with DataDirectory(home), VoteProtection(home / "votes.sqlite") as guard, Journal(home / "journal.sqlite") as journal:
    kept = len(guard.history()) == votes and len(journal.since(0)) == inputs
    signs = guard.admit("vote", 9999, bytes(32), b"x")
RoundStore(home / "rounds.sqlite").close()
print(json.dumps({"refused": refused, "kept": kept, "signs": signs}))
"""


def test_every_file_says_that_the_disk_is_full(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Votes, journal, transactions, reports and a new directory are refused with the same code and remedy; with space
    again everything that was admitted is there."""
    told = json.loads(run_on_small_disk(tmp_path_factory.mktemp("small") / "disk", 768, FILES))
    files = {"votes", "announcements", "journal", "outbox", "rounds", "another directory"}
    assert {name: code for name, (code, _) in told["refused"].items()} == dict.fromkeys(files, int(Exit.DISK_FULL))
    assert all("free disk space" in text for _, text in told["refused"].values()), told["refused"]
    assert (told["kept"], told["signs"]) == (True, True)


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, Exit.DISK_FULL), (errno.EDQUOT, Exit.DISK_FULL), (errno.EACCES, Exit.STORE)]
)
def test_only_a_full_disk_is_worth_a_restart(number: int, code: Exit) -> None:
    """A quota counts as a disk; a directory of somebody else's does not."""
    assert exit_code_of(OSError(number, "")) is code


def test_an_error_that_is_not_sqlites_own_is_no_full_disk() -> None:
    """It has no code."""
    assert not is_disk_full(sqlite3.DatabaseError("anything"))
