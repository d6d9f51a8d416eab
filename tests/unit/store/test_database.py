"""Migrations of SQLite files."""

import sqlite3
from pathlib import Path

import pytest

from node.exits import Refusal
from node.store.database import open_database, transaction

FIRST = "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1)"
SECOND = "ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'new'"


def test_a_file_of_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """Only the migrations that are missing run, and the data stays."""
    open_database(tmp_path / "d", (), (FIRST,), "").close()
    connection = open_database(tmp_path / "d", (), (FIRST, SECOND), "")
    assert connection.execute("SELECT a, b FROM t").fetchall() == [(1, "new")]
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Half a migration is rolled back, and the operator gets one line."""
    open_database(tmp_path / "d", (), (FIRST,), "").close()
    with pytest.raises(Refusal, match="ask for help"):
        open_database(
            tmp_path / "d", (), (FIRST, "INSERT INTO t VALUES (2); INSERT INTO nowhere VALUES (3)"), "ask for help"
        )
    connection = sqlite3.connect(tmp_path / "d")
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()


def test_a_commit_that_finds_the_file_busy_leaves_nothing_open(tmp_path: Path) -> None:
    """It is raised, and once the reader is gone the next transaction is whole."""
    open_database(tmp_path / "d", (), (FIRST,), "").close()
    connection = sqlite3.connect(tmp_path / "d", isolation_level=None, timeout=0.0)
    reader = sqlite3.connect(tmp_path / "d", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT a FROM t").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="locked"), transaction(connection):
        connection.execute("INSERT INTO t VALUES (2)")
    reader.close()
    with transaction(connection):
        connection.execute("INSERT INTO t VALUES (3)")
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,), (3,)]
    connection.close()
