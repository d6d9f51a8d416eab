"""Encoding of calls, decoding of results, events and custom errors by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from protocols.identifiers import keccak256


class Revert(msgspec.Struct, frozen=True):
    """Why a call was refused: the error's name and its fields."""

    name: str
    fields: dict[str, Any]


class DecodedEvent(msgspec.Struct, frozen=True):
    """A decoded log."""

    name: str
    fields: dict[str, Any]


class _Shape(msgspec.Struct, frozen=True):
    name: str
    types: tuple[str, ...]
    names: tuple[str, ...]
    indexed: tuple[bool, ...] = ()
    returns: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return f"{self.name}({','.join(self.types)})"

    @property
    def signature(self) -> bytes:
        return keccak256(self.text.encode())


BUILTIN = (_Shape("Error", ("string",), ("message",)), _Shape("Panic", ("uint256",), ("code",)))


class Abi:
    """A contract's interface. Indexed arguments must be values.

    Functions are called by their name, overloaded ones by their signature: "submitReward(uint256,int256)".
    """

    def __init__(self, abi: Sequence[dict[str, Any]]) -> None:
        shapes = [(entry["type"], _shape(entry)) for entry in abi if "name" in entry]
        functions = [shape for kind, shape in shapes if kind == "function"]
        names = Counter(shape.name for shape in functions)
        self._functions = {shape.name: shape for shape in functions if names[shape.name] == 1}
        self._functions |= {shape.text: shape for shape in functions}
        self._events = {shape.signature: shape for kind, shape in shapes if kind == "event"}
        errors = [shape for kind, shape in shapes if kind == "error"]
        self._errors = {shape.signature[:4]: shape for shape in (*BUILTIN, *errors)}

    def call(self, function: str, *arguments: object) -> str:
        """Return a call's data ("0x..."). Raises KeyError for an unknown function, or the name of several."""
        shape = self._functions[function]
        return "0x" + (shape.signature[:4] + encode(shape.types, arguments)).hex()

    def result(self, function: str, data: str) -> tuple[Any, ...]:
        """Return a call's decoded results. Raises `eth_abi`'s `DecodingError` where they do not fit."""
        return _decoded(self._functions[function].returns, bytes.fromhex(data[2:]))

    def topic(self, event: str) -> str:
        """Return an event's first topic ("0x...")."""
        return next("0x" + topic.hex() for topic, shape in self._events.items() if shape.name == event)

    def event(self, log: dict[str, Any]) -> DecodedEvent | None:
        """Return a decoded log; None where it is none of this contract's events. Raises `DecodingError`."""
        topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
        shape = self._events.get(topics[0]) if topics else None
        if shape is None:
            return None
        if len(topics) != 1 + sum(shape.indexed):
            raise DecodingError(f"a log of {shape.name} has {len(topics)} topics")
        plain = [kind for kind, indexed in zip(shape.types, shape.indexed, strict=True) if not indexed]
        values = iter(_decoded(plain, bytes.fromhex(log["data"][2:])))
        keys = iter(topics[1:])
        fields = {}
        for name, kind, indexed in zip(shape.names, shape.types, shape.indexed, strict=True):
            fields[name] = _decoded([kind], next(keys))[0] if indexed else next(values)
        return DecodedEvent(shape.name, fields)

    def error(self, selector: bytes) -> str:
        """Return the name of an error by its first four bytes; "UnknownError" where it is none of these."""
        shape = self._errors.get(selector)
        return shape.name if shape else "UnknownError"

    def revert(self, data: object) -> Revert | None:
        """Return the error that revert data names; None where `data` is not revert data."""
        if isinstance(data, dict):  # some servers nest it
            data = data.get("data") or data.get("result")
        if not isinstance(data, str) or not data.startswith("0x") or len(data) < 10:
            return None
        try:
            raw = bytes.fromhex(data[2:])
        except ValueError:
            return None
        shape = self._errors.get(raw[:4])
        try:
            fields = _decoded(shape.types, raw[4:]) if shape else ()
        except DecodingError:
            shape, fields = None, ()
        if shape is None:
            return Revert("UnknownError", {"data": data})
        return Revert(shape.name, dict(zip(shape.names, fields, strict=True)))


def _decoded(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """Return values. Raises `DecodingError`, for text that is no UTF-8 too."""
    try:
        return tuple(decode(types, data))
    except UnicodeDecodeError as error:
        raise DecodingError(f"text that is no text: {error}") from error


def _shape(entry: dict[str, Any]) -> _Shape:
    inputs = entry.get("inputs", [])
    return _Shape(
        entry["name"],
        tuple(_type(part) for part in inputs),
        tuple(part["name"] for part in inputs),
        tuple(bool(part.get("indexed")) for part in inputs),
        tuple(_type(part) for part in entry.get("outputs", [])),
    )


def _type(part: dict[str, Any]) -> str:
    kind = str(part["type"])
    if kind.startswith("tuple"):
        return "(" + ",".join(_type(inner) for inner in part["components"]) + ")" + kind[len("tuple") :]
    return kind
