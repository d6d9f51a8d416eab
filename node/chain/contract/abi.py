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


class _Entry(msgspec.Struct, frozen=True):
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


BUILTIN = (_Entry("Error", ("string",), ("message",)), _Entry("Panic", ("uint256",), ("code",)))


class Abi:
    """A contract's interface. Indexed arguments must be values.

    Functions are called by their name, overloaded ones by their signature: "submitReward(uint256,int256)".
    """

    def __init__(self, abi: Sequence[dict[str, Any]]) -> None:
        entries = [(entry["type"], _parsed(entry)) for entry in abi if "name" in entry]
        functions = [item for kind, item in entries if kind == "function"]
        names = Counter(item.name for item in functions)
        self._functions = {item.name: item for item in functions if names[item.name] == 1}
        self._functions |= {item.text: item for item in functions}
        self._events = {item.signature: item for kind, item in entries if kind == "event"}
        errors = [item for kind, item in entries if kind == "error"]
        self._errors = {item.signature[:4]: item for item in (*BUILTIN, *errors)}

    def call(self, function: str, *arguments: object) -> str:
        """Return a call's data ("0x..."). Raises KeyError for an unknown function, or the name of several."""
        item = self._functions[function]
        return "0x" + (item.signature[:4] + encode(item.types, arguments)).hex()

    def result(self, function: str, data: str) -> tuple[Any, ...]:
        """Return a call's decoded results. Raises `eth_abi`'s `DecodingError` where they do not fit."""
        return _decoded(self._functions[function].returns, bytes.fromhex(data[2:]))

    def topic(self, event: str) -> str:
        """Return an event's first topic ("0x...")."""
        return next("0x" + topic.hex() for topic, item in self._events.items() if item.name == event)

    def event(self, log: dict[str, Any]) -> DecodedEvent | None:
        """Return a decoded log; None where it is none of this contract's events. Raises `DecodingError`."""
        topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
        item = self._events.get(topics[0]) if topics else None
        if item is None:
            return None
        if len(topics) != 1 + sum(item.indexed):
            raise DecodingError(f"a log of {item.name} has {len(topics)} topics")
        plain = [kind for kind, indexed in zip(item.types, item.indexed, strict=True) if not indexed]
        values = iter(_decoded(plain, bytes.fromhex(log["data"][2:])))
        keys = iter(topics[1:])
        fields = {}
        for name, kind, indexed in zip(item.names, item.types, item.indexed, strict=True):
            fields[name] = _decoded([kind], next(keys))[0] if indexed else next(values)
        return DecodedEvent(item.name, fields)

    def error(self, selector: bytes) -> str:
        """Return the name of an error by its first four bytes; "UnknownError" where it is none of these."""
        item = self._errors.get(selector)
        return item.name if item else "UnknownError"

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
        item = self._errors.get(raw[:4])
        try:
            fields = _decoded(item.types, raw[4:]) if item else ()
        except DecodingError:
            item, fields = None, ()
        if item is None:
            return Revert("UnknownError", {"data": data})
        return Revert(item.name, dict(zip(item.names, fields, strict=True)))


def _decoded(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """Return values. Raises `DecodingError`, for text that is no UTF-8 too."""
    try:
        return tuple(decode(types, data))
    except UnicodeDecodeError as error:
        raise DecodingError(f"text that is no text: {error}") from error


def _parsed(entry: dict[str, Any]) -> _Entry:
    inputs = entry.get("inputs", [])
    return _Entry(
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
