"""What scenarios call peers, accounts, bodies and seeds: words in place of 32 bytes."""

from __future__ import annotations

from typing import Any

from node.machine import commands as c
from protocols.identifiers import body_digest
from protocols.signed_messages import MessageTopic, RelayedMessage
from protocols.wire import NOTHING

NAMES = ("me", "ada", "bob", "cyd", "dan", "eve")
ADDRESSES = {name: f"0x{number:040x}" for number, name in enumerate(NAMES, 1)}

Options = dict[str, str]
"""The words of a line that stand as name=value."""


class Names:
    """What was named so far; values read back as they were called."""

    def __init__(self) -> None:
        self._names: dict[object, str] = {address: name for name, address in ADDRESSES.items()} | {NOTHING: "nothing"}

    def name(self, value: Any) -> str:
        """Return a value as a scenario calls it."""
        if isinstance(value, tuple):
            return "[" + " ".join(self.name(each) for each in value) + "]"
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, MessageTopic):
            return str(value)
        if isinstance(value, RelayedMessage):
            return self.name(value.peer)
        if isinstance(value, c.Command):
            return type(value).__name__
        if isinstance(value, (bytes, str)) and value in self._names:
            return self._names[value]
        return f'"{value}"' if isinstance(value, str) and " " in value else str(value)

    def called(self, name: str) -> bytes:
        """Return the 32 bytes that a scenario calls by this name."""
        value = body_digest(name.encode())
        self._names[value] = name
        return value

    def owner(self, options: Options) -> str:
        """Return the account behind a peer, if one is named."""
        if "owner" not in options:
            return ""
        address = "0x" + self.called(options["owner"]).hex()[:40]
        self._names[address] = options["owner"]
        return address

    def seed(self, round_number: int, options: Options) -> bytes:
        """Return the seed of a round: the one named, else the one that every round has by default."""
        return self.called(options.get("seed", f"seed{round_number}"))

    def body(self, peer: str, where: str, options: Options) -> bytes:
        """Return the digest of a peer's body."""
        return self.called(options.get("body", f"{peer}:{where}"))
