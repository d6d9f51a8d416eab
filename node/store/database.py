"""Opening SQLite files: checked, migrated, and refused in one line if they can't be used."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from node.exits import Exit, Refusal
from node.files.private import MODE, make_private
from node.store.disk_space import REMEDY, is_disk_full


def open_database(path: Path, pragmas: Sequence[str], migrations: Sequence[str], advice: str) -> sqlite3.Connection:
    """Open `path`, creating it if it is missing (for its owner only), and migrate its schema.

    `migrations` are scripts; `PRAGMA user_version` counts the applied ones and changes in the script's transaction.
    Raises `Refusal` if the file is damaged, written by a newer version, or can't be opened; `advice` tells the operator
    what to do about it.
    """
    _make_private(path)
    with refusing(path, advice), ExitStack() as opened:
        connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        opened.callback(connection.close)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        _check(connection)
        _migrate(connection, path, migrations)
        opened.pop_all()
    return connection


def _make_private(path: Path) -> None:
    """Create a missing file for its owner only, and take others' permissions on one that is there.

    SQLite gives the files beside a database its mode; those of a killed process may be older. What fails here fails
    again when SQLite opens the file, or costs nothing but privacy (a file system without modes).
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE))
    for name in (path.name, *(f"{path.name}-{kind}" for kind in ("wal", "shm", "journal"))):
        with suppress(OSError):
            make_private(path.with_name(name))


def move_aside(path: Path, why: str) -> Path:
    """Rename a database, and SQLite's files beside it, to NAME.WHY-DATE, so that it can still be inspected; return the
    new path. Raises OSError."""
    suffix = f"{why}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for each in sorted(path.parent.glob(f"{path.name}*")):
        if each.name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            os.replace(each, each.with_name(each.name.replace(path.name, f"{path.name}.{suffix}", 1)))
    return path.with_name(f"{path.name}.{suffix}")


@contextmanager
def reading(path: Path, version: int, advice: str) -> Iterator[sqlite3.Connection]:
    """Open a file for reading while another process writes it; `version` is the newest schema this program supports.

    It is opened in write mode, so that SQLite recovers the log of a killed writer and leaves no files behind. Raises
    `Refusal` if it is missing, damaged, or written by a newer version.
    """
    with refusing(path, advice):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5.0)
        try:
            connection.execute("PRAGMA query_only = ON")
            _check_version(connection, path, version)
            yield connection
        finally:
            connection.close()


@contextmanager
def refusing(path: Path, advice: str) -> Iterator[None]:
    """Turn SQLite's errors about a file into a `Refusal`; `advice` is for all but a full disk."""
    try:
        yield
    except sqlite3.Error as error:
        if is_disk_full(error):
            raise Refusal(Exit.DISK_FULL, f"cannot write {path}: {error}; {REMEDY}") from error
        raise Refusal(Exit.STORE, f"cannot use {path}: {error}; {advice}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block completely or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # the block failed, or COMMIT found the file busy
            connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(str(found).split()))


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    version = _check_version(connection, path, len(migrations))
    for number, script in enumerate(migrations[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _check_version(connection: sqlite3.Connection, path: Path, known: int) -> int:
    """Return the version of a file's schema. Raises `Refusal` if it is newer than `known`."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > known:
        raise Refusal(
            Exit.STORE,
            f"{path} was written by a newer version (schema {version}, this one supports {known}); "
            "install the newer version again",
        )
    return int(version)
