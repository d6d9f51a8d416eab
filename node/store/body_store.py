"""Encoded rollouts on disk, by digest: ROUND/HEXDIGEST, written to a draft and renamed.

A body's name is the digest of its bytes, so it is checked when it is read. Files are not synced one by one: a body
that a power cut has damaged is noticed, removed, and fetched or generated again.

A full disk makes the store smaller: the oldest rounds go until the new body fits. Where that is not enough, or the disk
fails otherwise, the body is not kept, and the caller is told.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from node.exits import Refusal
from node.files.atomic import DRAFT, replace_file
from node.files.private import DIRECTORY_MODE, MODE, make_private
from node.store.disk_space import FULL, exit_code_of
from protocols.identifiers import Digest, body_digest

log = structlog.get_logger()

DEFAULT_LIMIT = 512 << 20
"""Default size of the store in bytes."""

SILENCE_SECONDS = 60.0
"""Between two warnings about the disk."""

_DIGEST = re.compile("[0-9a-f]{64}")


class BodyStore:
    """Implements `node.ports.bodies.Bodies` under a directory, bounded by `limit` bytes; the oldest rounds go first."""

    def __init__(
        self, directory: Path, limit: int = DEFAULT_LIMIT, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Take over the bodies of an earlier process. Raises `Refusal` if the directory can't be used."""
        self._directory = directory
        self._limit = limit
        self._monotonic, self._warned = monotonic, -math.inf
        self.counters: Counter[str] = Counter()
        """Bodies `removed` to make room on a full disk, and bodies `not_kept`."""
        self._round_of: dict[Digest, int] = {}
        self._rounds: dict[int, dict[Digest, int]] = {}
        self._size = 0
        try:
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            make_private(directory)
            self._scan()
        except OSError as error:
            raise Refusal(
                exit_code_of(error), f"cannot use {directory}: {error.strerror}; check path, owner and disk"
            ) from error

    @property
    def size(self) -> int:
        """Bytes kept now."""
        return self._size

    def __len__(self) -> int:
        return len(self._round_of)

    def get(self, digest: Digest) -> bytes | None:
        """Return the body, None if it is not in the store (any more) or can't be read; a damaged one is removed."""
        round_number = self._round_of.get(digest)
        if round_number is None:
            return None
        try:
            body = self._path(round_number, digest).read_bytes()
        except FileNotFoundError:
            body = b""
        except OSError as error:
            self._warn(f"not read: {error.strerror}")
            return None
        if body_digest(body) == digest:
            return body
        log.warning("body.damaged", body=digest.hex()[:16], in_round=round_number)
        with suppress(OSError):  # a disk that can't be written: it is forgotten, and found again at the next start
            self._remove(digest)
        return None

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        """Store a body; on disk when this returns. Raises ValueError if it does not match the digest or is too large.

        A body that is already stored moves to the later of the two rounds. Raises OSError if it can't be written, also
        after all earlier rounds are removed from a full disk.
        """
        if body_digest(body) != digest:
            raise ValueError(f"the body does not hash to {digest.hex()}")
        if len(body) > self._limit:
            raise ValueError(f"a body of {len(body)} bytes exceeds the store's {self._limit}")
        known = self._round_of.get(digest)
        if known is not None and known >= round_number:
            return
        if known is not None:
            self._remove(digest)
        self._make_room(len(body))
        self._write_making_room(self._path(round_number, digest), body, round_number)
        self._note(digest, len(body), round_number)

    def _write_making_room(self, path: Path, body: bytes, round_number: int) -> None:
        """Write a file; from a full disk bodies of earlier rounds are removed until it fits."""
        removed = 0
        while True:
            try:
                self._write(path, body)
            except OSError as error:
                freed = self._remove_earlier(round_number, len(body)) if error.errno in FULL else 0
                if not freed:
                    self.counters["not_kept"] += 1
                    self._warn(f"not kept: {error.strerror}")
                    raise
                removed += freed
            else:
                break
        if removed:
            self._warn(f"{removed} of the oldest were removed to make room: the disk is full")

    def _remove_earlier(self, round_number: int, wanted: int) -> int:
        """Remove bodies of the oldest rounds, all before `round_number`, of `wanted` bytes; return how many."""
        before, target = len(self), self._size - wanted
        while self._rounds and min(self._rounds) < round_number and self._size > target:
            self._remove(next(iter(self._rounds[min(self._rounds)])))
        removed = before - len(self)
        self.counters["removed"] += removed
        return removed

    def _warn(self, what: str) -> None:
        now = self._monotonic()
        if now - self._warned >= SILENCE_SECONDS:
            self._warned = now
            log.warning("bodies.disk_failed", path=str(self._directory), reason=what, remedy="free or mend the disk")

    def _note(self, digest: Digest, size: int, round_number: int) -> None:
        self._round_of[digest] = round_number
        self._rounds.setdefault(round_number, {})[digest] = size
        self._size += size

    def _make_room(self, wanted: int) -> None:
        while self._rounds and self._size + wanted > self._limit:
            self._remove(next(iter(self._rounds[min(self._rounds)])))

    def _remove(self, digest: Digest) -> None:
        round_number = self._round_of.pop(digest)
        bodies = self._rounds[round_number]
        self._size -= bodies.pop(digest)
        if not bodies:
            del self._rounds[round_number]
        path = self._path(round_number, digest)
        path.unlink(missing_ok=True)
        if not bodies:
            _remove_if_empty(path.parent)

    def _path(self, round_number: int, digest: Digest) -> Path:
        return self._directory / str(round_number) / digest.hex()

    def _write(self, path: Path, body: bytes) -> None:
        path.parent.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        try:
            replace_file(path, body, mode=MODE, durable=False)
        except OSError:
            _remove_if_empty(path.parent)
            raise

    def _scan(self) -> None:
        """Take over bodies of earlier processes, oldest first; remove drafts, leave other files alone."""
        found: list[tuple[float, Digest, int, int]] = []
        for path in self._directory.glob("*/*"):
            if path.suffix == DRAFT:
                path.unlink()
            elif path.parent.name.isdecimal() and _DIGEST.fullmatch(path.name):
                info = path.stat()
                found.append((info.st_mtime, bytes.fromhex(path.name), info.st_size, int(path.parent.name)))
        for _, digest, size, round_number in sorted(found):
            self._adopt(digest, size, round_number)

    def _adopt(self, digest: Digest, size: int, round_number: int) -> None:
        """Register a file that was found; of two with the same name (after a crash while it moved) keep the later."""
        known = self._round_of.get(digest)
        if known is not None and known >= round_number:
            self._path(round_number, digest).unlink()
            return
        if known is not None:
            self._remove(digest)
        self._note(digest, size, round_number)


class BodyReader:
    """Bodies of a store that a running node owns; read-only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, digest: Digest) -> bytes | None:
        """Return the body, None if it is missing or damaged."""
        for path in self._directory.glob(f"*/{digest.hex()}"):
            with suppress(OSError):
                body = path.read_bytes()
                if body_digest(body) == digest:
                    return body
        return None


def _remove_if_empty(directory: Path) -> None:
    """Remove a round's directory unless it holds other files."""
    with suppress(OSError):
        directory.rmdir()
