"""Included trainer settings: one file per model and per kind of device."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import msgspec

from node.config import TrainerSettings

CONFIGS = Path(__file__).parents[2] / "configs"
"""The presets, both in a checkout and in an installation."""

Scalar: TypeAlias = str | int | float | bool
Settings: TypeAlias = dict[str, Scalar]
"""Values of section [trainer] by key."""


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a preset's file."""

    trainer: Settings


def presets(kind: str) -> dict[str, Path]:
    """Return the presets of a kind ("models" or "devices") by name."""
    return {path.stem: path for path in sorted((CONFIGS / kind).glob("*.toml"))}


def settings_of(path: Path) -> Settings:
    """Return a preset's settings. Raises `msgspec.ValidationError` for a key that is not the trainer's."""
    settings = msgspec.toml.decode(path.read_bytes(), type=Preset).trainer
    msgspec.convert(settings, TrainerSettings)
    return settings
