"""Checkpoints: weights, optimiser, random state and counters; atomic, checked by digest, the last ones kept.

The learning rate follows from the counters, and the groups drawn for updates from seed and round: neither is stored.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from node.files.atomic import remove_drafts, replace_directory, replace_link
from node.trainer.engines.engine import Engine
from node.trainer.engines.process_group import SINGLE_PROCESS, ProcessGroup, full_tensor
from protocols.identifiers import Digest

log = structlog.get_logger()

STATE, OPTIMIZER, MODEL = "state.json", "optimizer.safetensors", "model"
_NAME = re.compile(r"checkpoint-(\d{8})")

RNG, CUDA_RNG = "rng", "rng.cuda"
"""Names of the random states among the optimiser's tensors, whose own names are "PARAMETER.KEY"."""


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer counts: the last round worked (-1 before the first), optimiser steps made, and steps (or
    samplings) given up because something was not finite."""

    round: int = -1
    updates: int = 0
    skipped: int = 0


class _State(msgspec.Struct, frozen=True, kw_only=True):
    counters: Counters
    parameters: int
    trained: int
    tokenizer: Digest
    optimizer: list[dict[str, Any]]
    files: dict[str, str]


class Checkpoints:
    """The checkpoints in one directory, `checkpoint-00000007` and so on, counted up at every save.

    `current` is a link to the newest one's model, a Hugging Face directory; it is replaced at once, never missing.
    Of several ranks, rank 0 alone writes and reads: what is sharded is gathered for it, and scattered by it.
    What a process that was killed left half written is removed when the next one begins.
    """

    def __init__(self, directory: Path, kept: int, current: Path, process_group: ProcessGroup = SINGLE_PROCESS) -> None:
        self._directory, self._kept, self._current, self._process_group = directory, kept, current, process_group
        if process_group.rank == 0:
            directory.mkdir(parents=True, exist_ok=True)
            remove_drafts(directory, "checkpoint-*")
            remove_drafts(current.parent, current.name)

    def save(self, engine: Engine, optimizer: torch.optim.Optimizer, counters: Counters) -> None:
        """Write a checkpoint; it is on disk when this returns. Raises OSError where the disk is full."""
        if self._process_group.rank:
            engine.save(self._directory)
            deque(_flat("", optimizer.state_dict()["state"]), maxlen=0)
            return
        found = self._numbers()
        target = self._path(found[-1] + 1 if found else 0)
        with replace_directory(target) as fresh:
            engine.save(fresh / MODEL)
            state = optimizer.state_dict()
            save_file(_tensors(state["state"]), fresh / OPTIMIZER)
            record = _State(
                counters=counters,
                parameters=engine.parameter_count,
                trained=_trained(engine),
                tokenizer=engine.fingerprint,
                optimizer=state["param_groups"],
                files=_digests(fresh),
            )
            (fresh / STATE).write_bytes(msgspec.json.encode(record))
        replace_link(self._current, target / MODEL)
        for number in self._numbers()[: -self._kept]:
            shutil.rmtree(self._path(number))

    def resume(self, engine: Engine, optimizer: torch.optim.Optimizer) -> Counters | None:
        """Load the newest checkpoint that is intact and of this model; None where there is none."""
        path, state = self._newest(engine) if self._process_group.rank == 0 else (self._directory, None)
        state = msgspec.json.decode(self._process_group.broadcast(msgspec.json.encode(state)), type=_State | None)
        if state is None:
            return None
        self._load(path, state, engine, optimizer)
        return state.counters

    def _newest(self, engine: Engine) -> tuple[Path, _State | None]:
        for number in reversed(self._numbers()):
            problem, state = _read(self._path(number), engine)
            if state is not None:
                return self._path(number), state
            log.warning("checkpoint.skipped", name=self._path(number).name, reason=problem)
        return self._directory, None

    def _load(self, path: Path, state: _State, engine: Engine, optimizer: torch.optim.Optimizer) -> None:
        engine.load_weights(path / MODEL)
        engine.weights_changed()
        parameters = dict(enumerate(engine.parameters()))
        tensors = self._process_group.scatter(
            load_file(path / OPTIMIZER) if self._process_group.rank == 0 else {},
            lambda name: parameters.get(_owner(name)),
        )
        torch.set_rng_state(tensors.pop(RNG))
        cuda = tensors.pop(CUDA_RNG, None)
        if cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda)
        groups = [_with_tuples(group) for group in state.optimizer]
        optimizer.load_state_dict({"state": _nested(tensors), "param_groups": groups})

    def _numbers(self) -> list[int]:
        return _numbers(self._directory)

    def _path(self, number: int) -> Path:
        return _path(self._directory, number)


def newest_intact(directory: Path) -> tuple[Path, Counters] | None:
    """Return the newest intact checkpoint in a directory, of whatever model; the directory is only read."""
    for number in reversed(_numbers(directory) if directory.is_dir() else []):
        problem, state = _intact(_path(directory, number))
        if state is not None:
            return _path(directory, number), state.counters
        log.warning("checkpoint.skipped", name=_path(directory, number).name, reason=problem)
    return None


def counters_of(path: Path) -> Counters:
    """Return the counters of one checkpoint. Raises ValueError where it is damaged or none."""
    problem, state = _intact(path)
    if state is None:
        raise ValueError(problem)
    return state.counters


def _numbers(directory: Path) -> list[int]:
    names = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(name.group(1)) for name in names if name)


def _path(directory: Path, number: int) -> Path:
    return directory / f"checkpoint-{number:08d}"


def _trained(engine: Engine) -> int:
    """Return how many parameters are trained: those of adapters are not those of the whole model."""
    return sum(each.numel() for each in engine.parameters())


def _tensors(state: dict[int, dict[str, Any]]) -> dict[str, Tensor]:
    """Return the optimiser's state and the random states as named tensors."""
    tensors = dict(_flat("", state))
    tensors[RNG] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[CUDA_RNG] = torch.cuda.get_rng_state()
    return tensors


def _flat(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors (and numbers, as tensors) of nested dictionaries under dotted names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, full_tensor(torch.as_tensor(value).detach()).cpu().contiguous().clone()


def _owner(name: str) -> int:
    """Return the number of the parameter that a tensor of the optimiser belongs to; -1 for the random states."""
    number = name.partition(".")[0]
    return int(number) if number.isdecimal() else -1


def _nested(tensors: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    """Undo `_flat` for a state by number of parameter; numbers stay tensors."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, *path, key = name.split(".")
        place: dict[str, Any] = state.setdefault(int(number), {})
        for step in path:
            place = place.setdefault(step, {})
        place[key] = tensor
    return state


def _with_tuples(group: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter group as it was before JSON made lists of its tuples (AdamW's betas)."""
    return {key: tuple(value) if key != "params" and isinstance(value, list) else value for key, value in group.items()}


def _read(path: Path, engine: Engine) -> tuple[str, _State | None]:
    """Return the state of a checkpoint that is intact and of this model, or why it is not."""
    problem, state = _intact(path)
    if state and (state.parameters, state.tokenizer) != (engine.parameter_count, engine.fingerprint):
        return "of another model", None
    if state and state.trained != _trained(engine):
        return "other parameters were trained (trainer.lora)", None
    return problem, state


def _intact(path: Path) -> tuple[str, _State | None]:
    """Return the state of a checkpoint whose every file is as it was written, or why it is not."""
    try:
        state = msgspec.json.decode((path / STATE).read_bytes(), type=_State)
        if state.files != _digests(path):
            return "damaged: a file's digest differs", None
    except (OSError, ValueError) as error:
        return f"damaged: {error}", None
    return "", state


def _digests(path: Path) -> dict[str, str]:
    """Return the BLAKE2b digest of every file but the state's own, by relative path."""
    files = sorted(each for each in path.rglob("*") if each.is_file() and each.name != STATE)
    return {str(each.relative_to(path)): _digest(each) for each in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
