"""The store of bodies on a disk that is full or broken."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.store import body_store
from node.store.body_store import SILENCE_SECONDS, BodyStore
from protocols.identifiers import body_digest
from tests.support.small_disk import run_on_small_disk

BODIES = """
import json, sys
from pathlib import Path
from structlog.testing import capture_logs
from node.store.body_store import BodyStore
from protocols.identifiers import body_digest

disk = Path(sys.argv[1])
store, refused = BodyStore(disk / "bodies"), []

def put(number, round_number):
    body = number.to_bytes(4, "big") * 1024
    try:
        store.put(body_digest(body), body, round_number)
    except OSError as error:
        refused.append([number, error.strerror])
    return body_digest(body)

with capture_logs() as logs:
    # Half of the disk, then ten times as many as there is room for, then none but the newest round's.
    made = [[number, put(number, number // 4)] for number in range(200)]
    kept = [number for number, digest in made if store.get(digest)]
    last = [put(1000 + number, 99) for number in range(40)]
    kept_of_last = sum(store.get(digest) is not None for digest in last)
    refused_last = len(refused)
    # Room is given back: the disk takes a body again, and a later round the place of that one.
    later = put(2000, 100)
    left = sorted(path.name for path in (disk / "bodies").iterdir())
print(json.dumps({
    "kept": kept, "last": kept_of_last, "refused": refused, "refused_last": refused_last, "left": left,
    "later": store.get(later) is not None, "counters": store.counters, "events": [each["event"] for each in logs],
    "drafts": [path.name for path in disk.rglob("*.new")], "again": len(BodyStore(disk / "bodies")) == len(store),
}))
"""


def test_a_full_disk_makes_room_by_the_oldest_rounds(tmp_path: Path) -> None:
    """On a disk for some twenty bodies the newest rounds are kept; only what no earlier round can make room for is
    refused. The operator is told once."""
    told = json.loads(run_on_small_disk(tmp_path / "disk", 100, BODIES))
    assert told["kept"] == list(range(200 - len(told["kept"]), 200))
    assert 8 <= len(told["kept"]) <= 25
    assert 8 <= told["last"] <= 25
    assert told["refused_last"] == 40 - told["last"]
    assert {reason for _, reason in told["refused"]} == {os.strerror(errno.ENOSPC)}
    assert told["later"]
    assert told["left"] == ["100", "99"]
    assert told["counters"]["not_kept"] == len(told["refused"])
    assert told["counters"]["removed"] >= 200 - 25
    assert told["events"] == ["bodies.disk_failed"]
    assert (told["drafts"], told["again"]) == ([], True)


def test_a_broken_disk_costs_no_other_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that room does not mend removes nothing; the operator is told at most once a minute."""
    now = 0.0
    store = BodyStore(tmp_path, monotonic=lambda: now)
    store.put(body_digest(b"old"), b"old", 1)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(body_store, "replace_file", fail)
    with capture_logs() as logs:
        for number in range(10):
            now = number * SILENCE_SECONDS / 4
            with pytest.raises(OSError, match="Input/output error"):
                store.put(body_digest(b"new"), b"new", 2)
    assert store.get(body_digest(b"old")) == b"old"
    assert store.counters == {"not_kept": 10}
    assert [each["reason"] for each in logs] == ["not kept: Input/output error"] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    monkeypatch.undo()
    store.put(body_digest(b"new"), b"new", 2)
    assert store.get(body_digest(b"new")) == b"new"


def test_a_body_that_can_not_be_read_is_not_there(tmp_path: Path) -> None:
    """Whatever the disk says: who asks is told that the body is not kept, and the operator why."""
    store = BodyStore(tmp_path)
    digest = body_digest(b"body")
    store.put(digest, b"body", 1)
    path = tmp_path / "1" / digest.hex()
    path.unlink()
    path.mkdir()
    with capture_logs() as logs:
        assert store.get(digest) is None
        assert store.get(digest) is None
    assert [(each["event"], each["reason"]) for each in logs] == [("bodies.disk_failed", "not read: Is a directory")]
    path.rmdir()
    path.write_bytes(b"body")
    assert store.get(digest) == b"body"


def test_a_damaged_body_on_a_disk_that_can_not_be_written_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be removed, so it is only forgotten."""
    store = BodyStore(tmp_path)
    digest = body_digest(b"body")
    store.put(digest, b"body", 1)
    (tmp_path / "1" / digest.hex()).write_bytes(b"damaged")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", fail)
    assert [store.get(digest), store.get(digest)] == [None, None]
    assert (len(store), store.size) == (0, 0)
    monkeypatch.undo()
    store.put(digest, b"body", 1)
    assert store.get(digest) == b"body"
