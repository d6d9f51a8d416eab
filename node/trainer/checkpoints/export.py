"""The current model as a Hugging Face directory, from the newest checkpoint that is intact; nothing is trained."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from node.files.atomic import replace_directory
from node.trainer.checkpoints.checkpoint import MODEL, Counters, counters_of, newest_intact
from node.trainer.file_names import ADAPTER_CONFIG, CHECKPOINTS

TRIES = 3
"""A running trainer removes its oldest checkpoints, also while somebody reads them."""


class NoModelError(Exception):
    """There is no checkpoint that can be used; the text is one line."""


class Current(msgspec.Struct, frozen=True):
    """A trained model: the directory that transformers loads, and how far it is."""

    directory: Path
    counters: Counters


def current_model(trainer: Path) -> Current:
    """Return the model of a trainer directory's newest intact checkpoint. Raises `NoModelError`."""
    found = newest_intact(trainer / CHECKPOINTS)
    if found is None:
        raise NoModelError(f"no intact checkpoint in {trainer / CHECKPOINTS}; the node saves one after each round")
    return Current(found[0] / MODEL, found[1])


def checkpointed_model(checkpoint: Path) -> Current:
    """Return the model of one checkpoint. Raises `NoModelError` where it is none, or damaged."""
    try:
        return Current(checkpoint / MODEL, counters_of(checkpoint))
    except ValueError as error:
        raise NoModelError(f"the checkpoint {checkpoint} can't be used ({error}); name another one") from error


def export_model(
    trainer: Path, out: Path, copy: Callable[[str, str], object] = shutil.copy2, *, merged: bool = False
) -> Current:
    """Copy the current model to `out`, whole or not at all; what was there is replaced.

    Where adapters were trained, they go alone unless `merged` asks for base and adapters as one model. Raises
    `NoModelError`, OSError where `out` can't be written.
    """
    for left in reversed(range(TRIES)):
        found = current_model(trainer)
        try:
            with replace_directory(out) as fresh:
                if not (merged and _merge(found.directory, fresh)):
                    shutil.copytree(found.directory, fresh, copy_function=copy, dirs_exist_ok=True)
        except OSError:  # copytree's own error too, where single files were gone
            if found.directory.exists() or not left:
                raise
        else:
            return Current(out, found.counters)
    raise AssertionError("the last try returns or raises")


def _merge(source: Path, out: Path) -> bool:
    if not (source / ADAPTER_CONFIG).is_file():
        return False
    from node.trainer.engines.causal_load import merge  # transformers takes a second to import: only where it is needed

    try:
        return merge(source, out)
    except ValueError as error:
        raise NoModelError(str(error)) from error


def link_or_copy(source: str, target: str) -> None:
    """Give a file a second name, so that it outlives its checkpoint; copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
