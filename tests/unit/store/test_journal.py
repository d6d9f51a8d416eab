"""The journal of inputs and snapshots."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from node.exits import Exit, Refusal
from node.machine.inputs import CheckpointSaved, NodeStarted, StageOpened, Stamped
from node.machine.state import initial
from node.runtime.loop import restore
from node.store.journal import Journal
from protocols.manifest import Manifest


def entry(number: int) -> Stamped:
    return Stamped(1000.0 + number, CheckpointSaved(number))


def test_inputs_come_back_as_they_were(tmp_path: Path) -> None:
    """Whatever is appended is read back equal and in order, by another journal on the same file."""
    opened = StageOpened(round=3, stage=1, seed=bytes(range(32)), deadline=99, opened=90, block=7)
    stamped = [Stamped(1.5, NodeStarted()), Stamped(2.25, opened), entry(2)]
    with Journal(tmp_path / "j") as journal:
        assert [journal.append(each) for each in stamped] == [1, 2, 3]
    with Journal(tmp_path / "j") as journal:
        assert journal.since(0) == list(enumerate(stamped, start=1))
        assert [number for number, _ in journal.since(1)] == [2, 3]


def test_many_are_stored_all_or_none(tmp_path: Path) -> None:
    """A batch whose fourth entry can't be encoded leaves nothing behind."""
    with Journal(tmp_path / "j") as journal:
        assert journal.append_many(entry(number) for number in range(3)) == 3
        with pytest.raises((msgspec.MsgspecError, TypeError)):
            journal.append_many([entry(3), Stamped(0.0, object())])  # type: ignore[arg-type]
        assert len(journal.since(0)) == 3


def test_two_snapshots_are_kept_with_the_inputs_after_them(tmp_path: Path) -> None:
    """After three snapshots the first is gone, and inputs begin after the second."""
    with Journal(tmp_path / "j") as journal:
        assert journal.latest_snapshot() is None
        for number in range(9):
            sequence = journal.append(entry(number))
            if number % 3 == 2:
                journal.save_snapshot(sequence, b"state %d" % sequence)
        assert journal.snapshots() == [(9, b"state 9"), (6, b"state 6")]
        assert journal.latest_snapshot() == (9, b"state 9")
        assert [number for number, _ in journal.since(0)] == [7, 8, 9]


def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """After inputs have been pruned, a reopened journal goes on counting where it was."""
    with Journal(tmp_path / "j") as journal:
        for _ in range(2):
            journal.save_snapshot(journal.append(entry(0)), b"")
        journal.save_snapshot(journal.append(entry(0)), b"")
    with Journal(tmp_path / "j") as journal:
        assert journal.append(entry(1)) == 4


WRITER = """
import sys
from pathlib import Path
from node.machine.inputs import CheckpointSaved, Stamped
from node.runtime.loop import restore
from node.machine.state import initial
from node.store.journal import Journal
from protocols.manifest import Manifest
journal = Journal(Path(sys.argv[1]))
for number in range(1_000_000):
    sequence = journal.append(Stamped(float(number), CheckpointSaved(number)))
    if sequence % 40 == 0:
        journal.save_snapshot(sequence, b"%d" % sequence)
    print(sequence, flush=True)
"""


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A writer killed in the middle: snapshot and later inputs hold every sequence number it had printed."""
    path = tmp_path / "j"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(300)]
    os.kill(writer.pid, signal.SIGKILL)
    said += writer.stdout.read().splitlines(keepends=True)
    writer.wait()
    acknowledged = max(int(line) for line in said if line.endswith("\n"))
    with Journal(path) as journal:
        latest = journal.latest_snapshot()
        assert latest is not None
        kept = journal.since(latest[0])
        assert latest[0] + len(kept) >= acknowledged
        assert [number for number, _ in kept] == list(range(latest[0] + 1, latest[0] + 1 + len(kept)))
        assert all(stamped == Stamped(number - 1.0, CheckpointSaved(number - 1)) for number, stamped in kept)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    """A file that is no database gives exit code STORE and says what to do, without a trace of SQLite's stack."""
    path = tmp_path / "j"
    path.write_bytes(b"not a database at all, but long enough to have a header" * 100)
    with pytest.raises(Refusal, match="move it away") as refused:
        Journal(path)
    assert refused.value.code is Exit.STORE
    assert "\n" not in str(refused.value)


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    """Garbage over a page in the middle is found when the journal is opened."""
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append_many(entry(number) for number in range(3000))
    content = bytearray(path.read_bytes())
    content[8192:12288] = os.urandom(4096)
    path.write_bytes(bytes(content))
    with pytest.raises(Refusal) as refused:
        Journal(path)
    assert refused.value.code is Exit.STORE


def test_an_input_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """An input that this version doesn't know names its number and what to do."""
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append(entry(0))
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO inputs (stamped) VALUES (?)", (msgspec.msgpack.encode([1.0, {"type": "Unheard"}]),))
    raw.close()
    with Journal(path) as journal, pytest.raises(Refusal, match="input 2"):
        journal.since(0)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file from a later version is left alone and the operator is told to go back to it."""
    path = tmp_path / "j"
    Journal(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(Refusal, match="newer version"):
        Journal(path)


def test_the_snapshot_before_is_taken_where_the_newest_is_unreadable(tmp_path: Path) -> None:
    """Nothing is lost: the inputs after it are kept, and replayed."""
    fresh = initial("0x" + "aa" * 20, Manifest(name="a"))
    good = msgspec.structs.replace(fresh, round=7)
    with Journal(tmp_path / "journal.sqlite") as journal:
        for snapshot in (msgspec.msgpack.encode(good), b"broken"):
            journal.save_snapshot(journal.append(entry(1)), snapshot)
        state, replayed = restore(journal, fresh)
        assert (state.round, replayed) == (7, 1)
        journal.save_snapshot(journal.append(entry(1)), b"broken too")
        assert restore(journal, fresh)[0].round == fresh.round
