"""Shared parts of trials with many runs: one starting model, a process pool, mean and standard deviation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


def start_of(out: Path, *, sparse: bool) -> Path:
    """Return the model that all runs start from; trained in `out` unless it is there (about a minute on one core)."""
    from node.trainer.engines.builtin.builtin_model import read_shape
    from node.trainer.engines.builtin.sft_warmup import build_builtin_model

    target = out / "builtin"
    if read_shape(target) is None:
        build_builtin_model(target, 0, sparse=sparse)
    return target


def played(run: Callable[..., ResultT], jobs: Iterable[tuple[Any, ...]], processes: int) -> Iterator[ResultT]:
    """Yield the result of `run` for each job's arguments as it completes; each process uses one core."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read once, when the children import torch
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, *job) for job in jobs]):
            yield done.result()


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean and standard deviation."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"
