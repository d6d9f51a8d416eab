"""Reads rows of JSON lines and Parquet files, and finds the files of a split in a directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from node.data.columns import question_of
from node.data.questions import Question
from node.data.recorded_questions import RecordedQuestions
from protocols.manifest import DataSpec

SUFFIXES = (".jsonl", ".json", ".parquet")
MOST_ROWS = 2_000_000
BATCH_ROWS = 1024
DEEPEST = 8
"""Depth to which a data set's directory is searched."""

Row = tuple[str, Mapping[str, Any]]
"""The location of a row, for errors, and its columns."""


def read_questions(path: Path, spec: DataSpec) -> RecordedQuestions:
    """Read a file, split by the held-out rule, or a directory in the hub's layout (`split_files`).

    Raises ValueError that names the file if it can't be read, or file and row if a row can't be used.
    """
    if not path.is_dir():
        return RecordedQuestions(str(path), _records([path], spec))
    names = sorted(_names(path))
    train, test = split_files(names, spec)
    if not train:
        raise ValueError(f"{path}: {no_split(names, spec)}")
    held_out = _records([path / name for name in test], spec) if test else None
    return RecordedQuestions(str(path), _records([path / name for name in train], spec), held_out)


def split_files(names: Iterable[str], spec: DataSpec) -> tuple[list[str], list[str]]:
    """Return, in order, the relative paths of the training and the held-out split; either may be empty.

    The hub's layout: `CONFIG/SPLIT-00000-of-00002.parquet`, `data/SPLIT-...` or `SPLIT.jsonl`. The first of
    `split_directories` that has the training split counts; the held-out split is searched in the same one only.
    """
    usable = [PurePosixPath(name) for name in sorted(names) if name.endswith(SUFFIXES)]
    for directory in split_directories(spec.config):
        here = [path for path in usable if f"{path.parent}/" == directory]
        train, test = ([str(each) for each in here if _split_of(each) == split] for split in (spec.split, spec.test))
        if train:
            return train, test
    return [], []


def split_directories(config: str) -> tuple[str, ...]:
    """Return the directories that may hold a config's files, each with a trailing slash, the likeliest first."""
    return (f"{config}/", f"data/{config}/", "./") if config else ("./", "data/", "main/", "default/")


def no_split(names: Iterable[str], spec: DataSpec) -> str:
    """Return the error text for a training split that no file holds."""
    paths = [PurePosixPath(name) for name in names if name.endswith(SUFFIXES)]
    held = sorted({str(path.parent / _split_of(path)) for path in paths})
    where = f" of config {spec.config!r}" if spec.config else ""
    here = f"there are {', '.join(held[:12])}" if held else "there are no .jsonl or .parquet files at all"
    return f"no file of split {spec.split!r}{where}; {here}; set data.split and data.config"


def _split_of(path: PurePosixPath) -> str:
    """Return "train" for train.jsonl, train-00000-of-00002.parquet and train.1.parquet."""
    return path.name.split(".", 1)[0].split("-", 1)[0]


def _names(root: Path) -> Iterator[str]:
    for path in root.rglob("*"):
        name = path.relative_to(root)
        if path.suffix in SUFFIXES and len(name.parts) <= DEEPEST:
            yield name.as_posix()


def _records(paths: Sequence[Path], spec: DataSpec) -> list[Question]:
    found: list[Question] = []
    for path in paths:
        try:
            for place, row in rows(path, columns=(spec.question, spec.answer)):
                found.append(question_of(place, row, spec))
                if len(found) > MOST_ROWS:
                    raise ValueError(f"{path}: more than {MOST_ROWS:,} rows; use a smaller split")
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror or error}") from error
    return found


def rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a file; of a Parquet file only `columns` are read."""
    return _parquet_rows(path, columns) if path.suffix == ".parquet" else _json_rows(path)


def _json_rows(path: Path) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield f"{path}:{number}", decoder.decode(line)
                except ValueError as error:
                    raise ValueError(
                        f"{path}:{number}: not a JSON object: {error}; each line holds one record"
                    ) from error


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"{path}: reading Parquet needs pyarrow; install swarm-node[data], or give trainer.data as JSON lines"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            wanted = [each for each in dict.fromkeys(_top(column, there) for column in columns) if each in there]
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted or None, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a Parquet file: {error}; download it again") from error


def _top(column: str, there: set[str]) -> str:
    return column if column in there else column.split(".", 1)[0]
