"""Data sets of the Hugging Face hub: the files of one revision, from the cache or downloaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from node.data.local_files import SUFFIXES, read_questions, split_directories, split_files
from node.data.recorded_questions import RecordedQuestions
from protocols.manifest import DataSpec

log = structlog.get_logger()


def hub_questions(name: str, spec: DataSpec, override: str) -> RecordedQuestions:
    """Return the questions of data set `name` at `spec.revision`, or of this node's own copy at path `override`.

    The token is the hub's usual one (HF_TOKEN or its file), for data sets that need one. Raises ValueError in one line
    if there is no such data set, revision or split, or if neither network nor cache has it.
    """
    return read_questions(Path(override) if override else _snapshot(name, spec), spec)


def _snapshot(name: str, spec: DataSpec) -> Path:
    """Return a directory with the files of both splits. A commit that was downloaded earlier needs no network."""
    from huggingface_hub import errors, snapshot_download

    patterns = split_patterns(spec)
    fetch = partial(snapshot_download, name, repo_type="dataset", revision=spec.revision, allow_patterns=patterns)
    try:
        root = Path(_cached(fetch) or _downloaded(fetch, name, spec))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise ValueError(
            f"the hub has no data set {name!r} at revision {spec.revision!r}, or not for this token; "
            "correct data.source or data.revision, or set HF_TOKEN"
        ) from error
    except OSError as error:
        raise ValueError(
            f"the hub can't be reached for {name!r} ({type(error).__name__}), and revision {spec.revision!r} was never "
            f"downloaded here; set trainer.data to a directory with {spec.split}.jsonl or "
            f"{spec.split}.parquet"
        ) from error
    names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
    if not split_files(names, spec)[0]:
        raise ValueError(
            f"the hub's {name!r} has no file like {' or '.join(patterns[:3])}; set data.split and data.config"
        )
    return root


def _cached(fetch: Callable[..., str]) -> str:
    """Return the cache directory if it has all files, else ""."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return fetch(local_files_only=True)
    except LocalEntryNotFoundError:
        return ""


def _downloaded(fetch: Callable[..., str], name: str, spec: DataSpec) -> str:
    log.info("data.downloading", data_set=name, revision=spec.revision)
    return fetch()


def split_patterns(spec: DataSpec) -> list[str]:
    """Return shell patterns for the files that may hold one of the two splits."""
    splits = [split for split in (spec.split, spec.test) if split]
    places = [directory.removeprefix("./") for directory in split_directories(spec.config)]
    return [f"{place}{split}*{suffix}" for split in splits for place in places for suffix in SUFFIXES]
