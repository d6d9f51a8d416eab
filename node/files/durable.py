"""Directories that are written completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = ".new"
"""Suffix of an incomplete file or directory."""


def sync(path: Path) -> None:
    """Wait until a file's (or a directory's) content is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replace_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty directory to fill; at the end it is synced and replaces `directory`.

    If the body raises, `directory` is unchanged. If the process dies, it is the old one, the new one, or (between two
    renames) missing.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = _draft(directory)
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


def remove_drafts(directory: Path, name: str) -> None:
    """Remove the drafts of a name (a glob pattern) that killed processes left in a directory.

    No process may be writing there.
    """
    for draft in directory.glob(f".{name}.*{DRAFT}"):
        if draft.is_symlink():
            draft.unlink()
        else:
            shutil.rmtree(draft)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{DRAFT}")


def point(link: Path, target: Path) -> None:
    """Point `link` at `target` atomically and durably, by a relative path, so that the tree can be moved."""
    draft = _draft(link)
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(target, link.parent))
    os.replace(draft, link)
    sync(link.parent)
