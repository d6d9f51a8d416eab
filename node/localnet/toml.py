"""Writes manifests and configurations as TOML."""

from __future__ import annotations

import msgspec


def toml_text(struct: msgspec.Struct) -> str:
    """Return a struct as TOML. None fields are left out. Raises TypeError for values that TOML can't express."""
    fields: dict[str, object] = {
        name: value for name, value in msgspec.to_builtins(struct).items() if value is not None
    }
    return msgspec.toml.encode(fields).decode()
