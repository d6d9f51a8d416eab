"""Files and directories that are there whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DRAFT = ".new"
"""How the name of what is not whole yet ends."""


def sync(path: Path) -> None:
    """Wait until a file's (or a directory's) content is on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def draft_of(path: Path) -> Path:
    """Return the name under which this process writes what is to become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}{DRAFT}")


def replace_file(path: Path, data: bytes, *, mode: int = 0o666, durable: bool = True) -> None:
    """Write a file in place of what is there. Raises OSError; then `path` is as it was.

    `mode` is under the umask. If `durable`, the file is on disk when this returns; else a crash of the machine (not of
    the process) may lose it, and that costs no wait for the disk.
    """
    os.replace(_write_draft(path, data, mode, durable), path)
    if durable:
        sync(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a new file, on disk when this returns.

    Raises FileExistsError if there is one already (nothing is replaced), OSError if it can't be written.
    """
    draft = _write_draft(path, data, mode, durable=True)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()
    sync(path.parent)


def _write_draft(path: Path, data: bytes, mode: int, durable: bool) -> Path:
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
    return draft


@contextmanager
def replace_directory(directory: Path) -> Iterator[Path]:
    """Give an empty directory to be filled; at the end it is synced and takes the place of `directory`.

    If the body raises, `directory` is as it was. If the process dies, it is the old one, the new one, or (for the
    moment between two renames) missing.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = draft_of(directory)
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        for each in [*fresh.rglob("*"), fresh]:
            sync(each)
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
        sync(directory.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def replace_link(link: Path, target: Path) -> None:
    """Make `link` lead to `target` (by a relative path, so that the whole may be moved), at once and on disk."""
    draft = draft_of(link)
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(target, link.parent))
    os.replace(draft, link)
    sync(link.parent)


def remove_drafts(directory: Path, name: str) -> None:
    """Remove what processes that were killed left half done of a name (a glob pattern) in a directory.

    Nobody may be writing there.
    """
    for draft in directory.glob(f".{name}.*{DRAFT}"):
        if draft.is_symlink() or draft.is_file():
            draft.unlink()
        else:
            shutil.rmtree(draft)
