"""Exclusive use of a file, and who holds it."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from node.exits import Exit, Refusal
from node.files.private import make_private
from node.store.disk_space import exit_code_of


class LockHolder(msgspec.Struct, frozen=True):
    """Who holds a lock: process, machine, and since when (ISO 8601, UTC). `inode` is the lock file's inode number: a
    file with another file's number is a copy; 0 if not known."""

    pid: int
    host: str
    since: str
    inode: int = 0


class FileLock:
    """An advisory lock (flock) that ends with the process, however it ends; the file stays and names the last holder.

    `copied` is True if the file is a copy of a signed one; everything beside it may then be a copy too. The file stays
    recognisable as a copy until the new holder signs it: sign only when all precautions are complete.
    """

    def __init__(self, path: Path, subject: str, remedy: str) -> None:
        """Take the lock without signing. Raises `Refusal` naming the holder: "`subject` is in use by ...; `remedy`"."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            text = f"cannot open {path}: {error.strerror}; check path, owner and disk"
            raise Refusal(exit_code_of(error), text) from error
        with suppress(OSError):
            make_private(path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"{subject} is in use by {self._named()}; {remedy}"
            os.close(self._descriptor)
            raise Refusal(Exit.LOCKED, text) from error
        self._inode = os.fstat(self._descriptor).st_ino
        last = self._holder()
        self.copied = last is not None and last.inode not in (0, self._inode)

    def _holder(self) -> LockHolder | None:
        try:
            return msgspec.json.decode(os.pread(self._descriptor, 4096, 0), type=LockHolder)
        except ValueError:
            return None

    def _named(self) -> str:
        holder = self._holder()
        if holder is None:
            return "another process that has just started"
        return f"process {holder.pid} on {holder.host} since {holder.since}"

    def sign(self) -> None:
        """Write this process as holder into the file. Raises `Refusal` if it can't be written."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        name = msgspec.json.encode(LockHolder(os.getpid(), socket.gethostname(), since, self._inode))
        try:
            os.pwrite(self._descriptor, name, 0)
            os.ftruncate(self._descriptor, len(name))
        except OSError as error:
            raise Refusal(
                exit_code_of(error), f"cannot write {self.path}: {error.strerror}; free disk space or mend the disk"
            ) from error

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
