"""Files that only their owner may read: permissions checked when read, written completely or not at all; files and
directories of older versions and of other programs made so."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from node.files.atomic import create_file, replace_file

MODE = 0o600
DIRECTORY_MODE = 0o700
SIZE_LIMIT = 64 << 20
"""Bytes: the largest private file is a backup with years of vote history."""


class OpenToOthersError(Exception):
    """Group or others have permissions on a file; the text is the operator's one-line error."""


def read_private(path: Path, limit: int = SIZE_LIMIT) -> bytes:
    """Return a file's content, at most `limit` bytes of it.

    Raises `OpenToOthersError` if group or others have any permission on it, OSError if it can't be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise OpenToOthersError(f"{path}: others may read it (mode {mode:04o}); run: chmod 600 {path}")
        return file.read(limit)


def create_private(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600 completely or not at all; it is on disk when this returns.

    Raises FileExistsError if there is one already (nothing is replaced), OSError if it can't be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_file(path, data, mode=MODE)


def replace_private(path: Path, data: bytes) -> None:
    """Write or replace a file of mode 0600, completely or not at all. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, data, mode=MODE)


def make_private(path: Path) -> bool:
    """Take every permission on a file or directory from group and others; return True if they had any.

    Left as they are: what is missing, a link, another account's, and a directory that all share (sticky, or the root).
    Raises OSError if the file system does not allow it.
    """
    try:
        info = path.lstat()
    except FileNotFoundError:
        return False
    shared = info.st_mode & stat.S_ISVTX or path == path.parent
    if stat.S_ISLNK(info.st_mode) or info.st_uid != os.geteuid() or shared or not info.st_mode & 0o077:
        return False
    path.chmod(stat.S_IMODE(info.st_mode) & DIRECTORY_MODE)
    return True
