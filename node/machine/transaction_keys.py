"""Under what a chain command is kept in the outbox, and settled: equal keys are the same transaction."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from protocols.identifiers import Seed
from protocols.signed_messages import MessageTopic


class BaseKey(msgspec.Struct, frozen=True, array_like=True):
    """Base of all keys. Its text is for people: it goes to logs, and nothing reads it back."""


class RegistrationKey(BaseKey, frozen=True, tag="register"):
    """This node's registration."""

    def __str__(self) -> str:
        return "register"


class RenewalKey(BaseKey, frozen=True, tag="renew"):
    """The renewal of this node's delegation: `serial` is the new one's, in milliseconds."""

    serial: int

    def __str__(self) -> str:
        return f"renew:{self.serial}"


class AdvanceKey(BaseKey, frozen=True, tag="advance"):
    """The end of a stage."""

    round: int
    stage: int

    def __str__(self) -> str:
        return f"advance:{self.round}:{self.stage}"


class MessageKey(BaseKey, frozen=True, tag="message"):
    """A message of this node's own. A vote is bound to the seed of its round; a reward is not, `seed` is empty."""

    topic: MessageTopic
    seed: Seed = b""

    def __str__(self) -> str:
        return f"{self.topic}:{self.seed.hex()[:16]}" if self.seed else str(self.topic)


class RelayKey(BaseKey, frozen=True, tag="relay"):
    """A batch of other nodes' messages, submitted in a turn of this node in a stage."""

    topic: MessageTopic
    round: int
    stage: int
    turn: int

    def __str__(self) -> str:
        return f"relay:{self.topic}:{self.round}:{self.stage}:{self.turn}"


TransactionKey: TypeAlias = RegistrationKey | RenewalKey | AdvanceKey | MessageKey | RelayKey
"""Every key of a command."""


def encode_key(key: BaseKey) -> str:
    """Return a key as the outbox's database has it: JSON, the same text for equal keys."""
    return msgspec.json.encode(key).decode()
