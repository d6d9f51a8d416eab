"""A full disk, told from a broken one: it mends without the operator's hand on the node, so a restart is worth it."""

from __future__ import annotations

import errno
import sqlite3

from node.exits import Exit

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of the system that free space mends."""
SQLITE_FULL = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})
"""SQLite's (https://sqlite.org/rescode.html): the second is that of the index of a write-ahead log."""
REMEDY = "free disk space, then start again"


def exit_code_of(error: OSError) -> Exit:
    """Return the exit code for an error of a file in the data directory."""
    return Exit.DISK_FULL if error.errno in FULL else Exit.STORE


def is_disk_full(error: sqlite3.Error) -> bool:
    """Return True if SQLite failed because the disk is full."""
    return getattr(error, "sqlite_errorname", "") in SQLITE_FULL
