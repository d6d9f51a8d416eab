"""What a node keeps is its owner's alone: a sealed vote could be read in the outbox before it is revealed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from node.files.private import make_private
from node.network.peers.peer_store import PeerStore
from node.store.body_store import BodyStore
from node.store.directory import DataDirectory
from node.store.journal import Journal
from node.store.outbox import SqliteOutbox
from node.store.round_reports import RoundStore
from node.vote_protection import VoteProtection
from protocols.identifiers import body_digest


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    """A process that would give everybody all permissions."""
    before = os.umask(0)
    yield
    os.umask(before)


@contextmanager
def opened(home: Path) -> Iterator[None]:
    """Everything that a running node keeps open, written to."""
    with ExitStack() as stack:
        stack.enter_context(DataDirectory(home))
        guard = stack.enter_context(VoteProtection(home / "votes.sqlite"))
        guard.admit("vote", 1, bytes(32), b"x")
        stack.enter_context(Journal(home / "journal.sqlite"))
        outbox = SqliteOutbox(home / "outbox.sqlite")
        stack.callback(outbox.close)
        outbox.put("key", b"record", unsettled=True)
        rounds = RoundStore(home / "rounds.sqlite")
        stack.callback(rounds.close)
        BodyStore(home / "bodies").put(body_digest(b"body"), b"body", 1)
        peers = PeerStore(home / "peers.json")
        peers.mark_connected("peer", 1.0, "/ip4/127.0.0.1/tcp/1")
        peers.save()
        yield


def modes(home: Path) -> dict[str, int]:
    paths = [home, *home.rglob("*")]
    return {str(path.relative_to(home)): stat.S_IMODE(path.stat().st_mode) for path in paths}


def assert_private(home: Path) -> set[str]:
    found = modes(home)
    files = {name: mode for name, mode in found.items() if (home / name).is_file()}
    assert set(files.values()) == {0o600}, files
    directories = {name: mode for name, mode in found.items() if name not in files}
    assert set(directories.values()) == {0o700}, directories
    return set(files)


def test_every_file_of_a_running_node_is_private(tmp_path: Path) -> None:
    """Also SQLite's files beside its databases, and the locks, whatever the umask says."""
    with opened(tmp_path / "node"):
        files = assert_private(tmp_path / "node")
    assert {"node.lock", "votes.sqlite", "votes.sqlite.lock", "journal.sqlite-wal", "outbox.sqlite-shm"} <= files
    assert any(name.startswith("bodies/1/") for name in files)


def test_a_directory_that_is_there_is_made_private(tmp_path: Path) -> None:
    """An older version, or whoever made the directory, left permissions to others: the next start takes them."""
    home = tmp_path / "node"
    with opened(home):
        left = {path.name: path.read_bytes() for path in home.iterdir() if path.name.endswith(("-wal", "-shm"))}
    for name, content in left.items():
        (home / name).write_bytes(content)
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with opened(home):
        changed = modes(home)
    kept = {name for name, mode in changed.items() if mode & 0o077}
    assert {name.rpartition("/")[0] for name in kept} <= {"bodies", "bodies/1"}
    assert changed["."] == changed["bodies"] == 0o700


def test_what_others_share_is_left_alone(tmp_path: Path) -> None:
    """A sticky directory, the root, a link, and what is not there; the owner's permissions stay as they are."""
    sticky, read_only, link = tmp_path / "sticky", tmp_path / "read-only", tmp_path / "link"
    sticky.mkdir()
    sticky.chmod(0o1777)
    read_only.write_bytes(b"")
    read_only.chmod(0o444)
    link.symlink_to(read_only)
    assert [make_private(path) for path in (sticky, link, Path("/"), tmp_path / "nothing")] == [False] * 4
    assert stat.S_IMODE(sticky.stat().st_mode) == 0o1777
    assert make_private(read_only)
    assert not make_private(read_only)
    assert stat.S_IMODE(read_only.stat().st_mode) == 0o400
