"""The mark on a data directory that was restored or copied: another node may be running with its key.

A node with this mark listens before it acts (`node.machine.doppelganger`). It starts without its old journal and
outbox: they would make it repeat steps that the other copy may already have passed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from node.exits import Refusal
from node.files.private import replace_private
from node.store.database import move_aside
from node.store.disk_space import exit_code_of

FILE = "restored.json"
STALE = ("journal.sqlite", "outbox.sqlite")
"""Files that are moved aside. Votes and key stay: they are what was restored."""


class RestoreMark(msgspec.Struct, frozen=True):
    """The content of restored.json: when (ISO 8601, UTC) and why the mark was set."""

    since: str
    reason: str


def mark(home: Path, reason: str) -> None:
    """Move a directory's journal and outbox aside, then write the mark, which says that all of it is done.

    Raises `Refusal` if it can't be written; a second call finishes what the first one began.
    """
    since = datetime.now(UTC)
    content = msgspec.json.encode(RestoreMark(since.isoformat(timespec="seconds"), reason))
    try:
        for name in STALE:
            move_aside(home / name, "before")
        replace_private(home / FILE, content)
    except OSError as error:
        raise Refusal(
            exit_code_of(error), f"cannot mark {home} as restored: {error.strerror}; check path, owner and disk"
        ) from error


def is_marked(home: Path) -> bool:
    """Return True if the directory has the mark."""
    return (home / FILE).exists()


def unmark(home: Path) -> None:
    """Remove the mark: no other node with this key was heard."""
    (home / FILE).unlink(missing_ok=True)
