"""Turns a row of any data set into a question: finds nested columns, and takes the text out of chat messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.data.questions import Question
from protocols.manifest import DataSpec

LONGEST = 65_536
"""Most characters of a question or an answer; a longer one fits no prompt."""


def question_of(place: str, row: Mapping[str, Any], spec: DataSpec) -> Question:
    """Return a row's question. Raises ValueError, beginning with `place`, if a column is missing or has no usable
    text."""
    return Question(
        column_text(place, row, spec.question, "data.question"), column_text(place, row, spec.answer, "data.answer")
    )


def column_text(place: str, row: Mapping[str, Any], column: str, key: str) -> str:
    """Return the text in a column. A dotted name addresses a nested column, unless a column has that exact name."""
    found = row[column] if column in row else _nested(place, row, column, key)
    text = _text(found)
    if not text:
        raise ValueError(f"{place}: the column {column!r} has no text; remove the row, or set {key}")
    if len(text) > LONGEST:
        raise ValueError(
            f"{place}: {len(text)} characters in the column {column!r}, at most {LONGEST} are allowed; remove the row"
        )
    return text


def _nested(place: str, row: Mapping[str, Any], column: str, key: str) -> Any:
    value: Any = row
    for part in column.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            here = sorted(value) if isinstance(value, Mapping) else type(value).__name__
            raise ValueError(f"{place}: no column {column!r}: no {part!r} among {here}; set {key}")
    return value


def _text(value: Any) -> str:
    """Return a cell as text: the user's last message of a chat, the first entry of any other list."""
    match value:
        case None:
            return ""
        case [*messages] if all(isinstance(each, Mapping) and "content" in each for each in messages):
            asked = [each["content"] for each in messages if each.get("role", "user") == "user"]
            return _text(asked[-1]) if asked else ""
        case [first, *_]:
            return _text(first)
        case bool() | Mapping():
            return ""
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value).strip()
