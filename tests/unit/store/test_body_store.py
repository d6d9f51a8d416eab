"""Bodies on disk, and the data directory."""

import os
from pathlib import Path

import pytest

from node.exits import Exit, Refusal
from node.store.body_store import BodyStore
from node.store.directory import DataDirectory
from protocols.identifiers import body_digest


def body(number: int, size: int = 100) -> bytes:
    return number.to_bytes(4, "big").ljust(size, b".")


def put(store: BodyStore, number: int, round_number: int, size: int = 100) -> bytes:
    content = body(number, size)
    digest = body_digest(content)
    store.put(digest, content, round_number)
    return digest


def test_bodies_survive_a_restart(tmp_path: Path) -> None:
    """A second store on the same directory serves what the first was given, and counts its bytes."""
    digest = put(BodyStore(tmp_path), 1, 4)
    again = BodyStore(tmp_path)
    assert again.get(digest) == body(1)
    assert (len(again), again.size) == (1, 100)
    assert again.get(bytes(32)) is None


def test_the_oldest_rounds_go_first(tmp_path: Path) -> None:
    """When room is short the lowest round is evicted, whatever came first, and its directory goes with it."""
    store = BodyStore(tmp_path, limit=300)
    newer, older, newest = put(store, 1, 7), put(store, 2, 3), put(store, 3, 8)
    latest = put(store, 4, 8)
    assert store.get(older) is None
    assert [store.get(each) for each in (newer, newest, latest)] == [body(1), body(3), body(4)]
    assert store.size == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7", "8"]


def test_the_bound_holds_after_a_restart(tmp_path: Path) -> None:
    """What an earlier process left counts towards the bound."""
    first = put(BodyStore(tmp_path, limit=250), 1, 1)
    store = BodyStore(tmp_path, limit=250)
    put(store, 2, 2)
    put(store, 3, 2)
    assert store.get(first) is None
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) == store.size == 200


def test_a_damaged_body_is_not_served(tmp_path: Path) -> None:
    """Bytes that changed on disk are noticed, removed, and may be put again."""
    store = BodyStore(tmp_path)
    digest = put(store, 1, 1)
    (tmp_path / "1" / digest.hex()).write_bytes(b"something else")
    assert store.get(digest) is None
    assert store.size == 0
    put(store, 1, 1)
    assert store.get(digest) == body(1)


def test_drafts_of_a_crash_are_removed_and_foreign_files_left(tmp_path: Path) -> None:
    """A half-written draft disappears at the next start; what is not ours stays and is not served."""
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / (f".{'0' * 64}.1.new")).write_bytes(b"half")
    (tmp_path / "5" / "notes").write_bytes(b"mine")
    assert len(BodyStore(tmp_path)) == 0
    assert [path.name for path in (tmp_path / "5").iterdir()] == ["notes"]


def test_a_wrong_digest_or_size_is_refused(tmp_path: Path) -> None:
    """A body that does not hash to its name, or is larger than the whole store, is an error of the caller."""
    store = BodyStore(tmp_path, limit=10)
    with pytest.raises(ValueError, match="hash"):
        store.put(bytes(32), b"x", 1)
    with pytest.raises(ValueError, match="exceeds"):
        put(store, 1, 1, 11)


def test_a_body_moves_to_the_later_round(tmp_path: Path) -> None:
    """Put again in a later round it lives as long as that round; in an earlier one nothing changes."""
    store = BodyStore(tmp_path)
    digest = put(store, 1, 3)
    put(store, 1, 5)
    put(store, 1, 4)
    assert [path.parent.name for path in tmp_path.glob("*/*")] == ["5"]
    assert store.get(digest) == body(1)
    assert store.size == 100


def test_a_second_node_on_a_directory_is_refused(tmp_path: Path) -> None:
    """One line names the first node and the way out; the directory is its owner's only."""
    with DataDirectory(tmp_path / "node") as directory:
        assert directory.path.stat().st_mode & 0o077 == 0
        with pytest.raises(Refusal, match=f"process {os.getpid()} on .*--data-dir") as refused:
            DataDirectory(tmp_path / "node")
        assert refused.value.code is Exit.LOCKED
    DataDirectory(tmp_path / "node").close()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file where the directory should be gives one line."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Refusal, match="cannot use the data directory"):
        DataDirectory(tmp_path / "file")
