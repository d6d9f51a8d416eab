"""Manifests and configurations as TOML text."""

from __future__ import annotations

import msgspec


def toml_text(struct: msgspec.Struct) -> str:
    """Return a struct as TOML; a field of None is left out. Raises TypeError for what TOML can't say."""
    fields: dict[str, object] = {
        name: value for name, value in msgspec.to_builtins(struct).items() if value is not None
    }
    return msgspec.toml.encode(fields).decode()
