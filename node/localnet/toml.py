"""Writes manifests and configurations as TOML: the part of the format that their structs need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec


def toml_text(struct: msgspec.Struct) -> str:
    """Return a struct as TOML: plain fields first, then a table for each nested struct. None fields are left out.

    Raises TypeError for values that TOML can't express.
    """
    fields: dict[str, object] = {
        name: value for name, value in msgspec.to_builtins(struct).items() if value is not None
    }
    plain = [f"{name} = {_value(value)}" for name, value in fields.items() if not isinstance(value, Mapping)]
    tables = [_table(name, value) for name, value in fields.items() if isinstance(value, Mapping)]
    return "\n\n".join(["\n".join(plain), *tables]).lstrip("\n") + "\n"


def _table(name: str, fields: Mapping[str, object]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in fields.items())])


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=True)
        case Mapping():
            return "{" + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(_value(each) for each in value) + "]"
        case _:
            raise TypeError(f"TOML has no {type(value).__name__}")
