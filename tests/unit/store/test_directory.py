"""The data directory: used by one process, marked when it was copied."""

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from node.exits import Exit, Refusal
from node.store.directory import LAYOUT, DataDirectory
from node.store.outbox import SqliteOutbox
from node.store.restore_mark import is_marked, mark, unmark
from tests.support.paths import ROOT


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second one is refused by name; a restart on the same directory is no copy."""
    with DataDirectory(tmp_path / "node"):
        with pytest.raises(Refusal, match="process") as refused:
            DataDirectory(tmp_path / "node")
        assert refused.value.code is Exit.LOCKED
    DataDirectory(tmp_path / "node").close()
    assert not is_marked(tmp_path / "node")
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700


def test_a_copy_is_noticed(tmp_path: Path) -> None:
    """A copied directory bears the mark and begins without journal and outbox, which are moved aside; the original
    goes on as it was."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    DataDirectory(original).close()
    for name in ("journal.sqlite", "journal.sqlite-wal", "outbox.sqlite", "votes.sqlite"):
        (original / name).write_bytes(name.encode())
    shutil.copytree(original, copy)
    DataDirectory(copy).close()
    assert is_marked(copy)
    names = {path.name for path in copy.iterdir()}
    assert names.isdisjoint({"journal.sqlite", "journal.sqlite-wal", "outbox.sqlite"})
    assert "votes.sqlite" in names
    assert any(name.startswith("journal.sqlite.before-") and name.endswith("-wal") for name in names)
    DataDirectory(original).close()
    assert not is_marked(original)
    unmark(copy)
    DataDirectory(copy).close()
    assert not is_marked(copy)


def cut_off(copy: Path, line: int) -> bool:
    """Start on a copy in a process that is killed before it comes to the line of that number; tell whether it was."""
    child = os.fork()
    if child == 0:
        left = itertools.repeat(None, line)

        def traced(frame: FrameType, event: str, _: object) -> Any:
            if "/node/store/" in frame.f_code.co_filename and event == "line" and next(left, "over"):
                os.kill(os.getpid(), signal.SIGKILL)
            return traced

        sys.settrace(traced)
        DataDirectory(copy)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_copy_is_noticed_wherever_its_first_start_is_cut_off(tmp_path: Path) -> None:
    """Killed before any line of it, the next start is a copy's all the same, and its stale files lie aside."""
    original = tmp_path / "original"
    DataDirectory(original).close()
    for name in ("journal.sqlite", "journal.sqlite-wal", "outbox.sqlite"):
        (original / name).write_bytes(b"stale")
    for line in itertools.count():
        copy = tmp_path / str(line)
        shutil.copytree(original, copy)
        if not cut_off(copy, line):
            break
        DataDirectory(copy).close()
        assert is_marked(copy), line
        assert not [path for path in copy.iterdir() if path.suffix.startswith(".sqlite")], line
    assert line > 30


def test_a_full_disk_leaves_the_copy_a_copy(tmp_path: Path) -> None:
    """What can't be marked is not signed either: it is refused until it can."""
    DataDirectory(tmp_path / "original").close()
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    (tmp_path / "copy" / "restored.json").mkdir()
    for _ in range(2):
        with pytest.raises(Refusal, match="cannot mark"):
            DataDirectory(tmp_path / "copy")
    (tmp_path / "copy" / "restored.json").rmdir()
    DataDirectory(tmp_path / "copy").close()
    assert is_marked(tmp_path / "copy")


def test_a_moved_directory_is_no_copy(tmp_path: Path) -> None:
    """Renamed on its file system it is still the same one."""
    DataDirectory(tmp_path / "here").close()
    (tmp_path / "here").rename(tmp_path / "there")
    DataDirectory(tmp_path / "there").close()
    assert not is_marked(tmp_path / "there")


def test_a_directory_that_can_not_be_marked_is_refused(tmp_path: Path) -> None:
    """Without the mark a copy would act at once: then it must not start."""
    (tmp_path / "restored.json").mkdir()
    with pytest.raises(Refusal) as refused:
        mark(tmp_path, "test")
    assert refused.value.code is Exit.STORE


def test_every_file_is_documented() -> None:
    """docs/data-directory.md says of each file what it is."""
    page = (ROOT / "docs" / "data-directory.md").read_text()
    assert [name for name in LAYOUT if f"`{name}`" not in page] == []


def test_an_outbox_from_before_versions_opens(tmp_path: Path) -> None:
    """Its table is there and its version is 0: the records stay."""
    path = tmp_path / "outbox.sqlite"
    outbox = SqliteOutbox(path)
    outbox.put("key", b"record", unsettled=True)
    outbox._db.execute("PRAGMA user_version = 0")
    outbox.close()
    again = SqliteOutbox(path)
    assert again.unsettled() == [b"record"]
    again.close()
