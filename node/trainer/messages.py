"""Frames between node and trainer child (`node.frames`): each is the MessagePack of a tagged struct."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from node.config import TrainerSettings as TrainerSettings
from node.frames import delimited
from protocols.identifiers import Address, Digest, Seed
from protocols.manifest import Manifest

FRAME_LIMIT = 64 << 20
"""No frame is larger, in bytes; weights travel by file."""


class Frame(msgspec.Struct, frozen=True, tag=True):
    """Base of all frames; the tag is the class name."""


# --- node to child --------------------------------------------------------------------------------------------------


class SetUp(Frame, frozen=True):
    """First frame: load data and model, resume from the newest checkpoint in `directory` if there is one."""

    settings: TrainerSettings
    manifest: Manifest
    peer: Address
    directory: str


class Generate(Frame, frozen=True):
    """Sample groups. `quoted` are digests of the bodies that their prompts quote; `quoted_bodies` holds these and what
    they quote in turn, encoded."""

    task: int
    round: int
    stage: int
    seed: Seed
    groups: int
    quoted: tuple[Digest, ...] = ()
    quoted_bodies: tuple[bytes, ...] = ()


class Train(Frame, frozen=True):
    """Make GRPO updates on these encoded bodies (already checked by the node; rewards are recomputed).

    `quoted_bodies` holds whatever they quote.
    """

    task: int
    round: int
    stage: int
    own: bytes
    external: tuple[bytes, ...]
    updates: int
    seconds: float
    quoted_bodies: tuple[bytes, ...] = ()


class Evaluate(Frame, frozen=True):
    """Measure held-out accuracy."""

    task: int
    round: int


class Save(Frame, frozen=True):
    """Save a checkpoint after `round`."""

    task: int
    round: int


class Cancel(Frame, frozen=True):
    """Give up every task up to and including `task`; overtakes queued frames."""

    task: int


class Bye(Frame, frozen=True):
    """End in order."""


# --- child to node --------------------------------------------------------------------------------------------------


class Hello(Frame, frozen=True):
    """The child runs; sent before the slow imports."""

    pid: int


class Ready(Frame, frozen=True):
    """The model is loaded."""

    parameters: int
    device: str
    tokenizer: Digest
    checkpoint_round: int


class Heartbeat(Frame, frozen=True):
    """The child lives; sent from its reader thread at least once a second."""


class Progress(Frame, frozen=True):
    """How far a task is, in tokens or groups; for logs and the live view."""

    task: int
    done: int
    total: int


class Generated(Frame, frozen=True):
    """Own groups, encoded as `protocols.wire.Rollouts`; `reward` sums the groups' mean rewards, `right` their shares of
    completions that end in the right answer."""

    task: int
    body: bytes
    groups: int
    reward: float
    seconds: float
    right: float = 0.0


class Trained(Frame, frozen=True):
    """Updates are made. `own` and `external` count groups that had an advantage and were trained on; `off_policy` are
    the external bodies that the off-policy filter rejects."""

    task: int
    updates: int
    own: int
    external: int
    loss: float
    seconds: float
    off_policy: tuple[Digest, ...] = ()


class Evaluated(Frame, frozen=True):
    """Held-out accuracy."""

    task: int
    accuracy: float
    questions: int
    seconds: float


class Saved(Frame, frozen=True):
    """A checkpoint is on disk."""

    task: int
    round: int


class Logged(Frame, frozen=True):
    """A line for the node's log."""

    level: str
    event: str
    fields: dict[str, str | int | float | bool | None]


class Failed(Frame, frozen=True):
    """A task was given up; `kind` is cancelled, memory, nonfinite or error."""

    task: int
    kind: str
    reason: str


ToChild: TypeAlias = SetUp | Generate | Train | Evaluate | Save | Cancel | Bye
FromChild: TypeAlias = Hello | Ready | Heartbeat | Progress | Generated | Trained | Evaluated | Saved | Logged | Failed

to_child = msgspec.msgpack.Decoder(ToChild)
from_child = msgspec.msgpack.Decoder(FromChild)
_encoder = msgspec.msgpack.Encoder()


def encoded(frame: ToChild | FromChild) -> bytes:
    """Return a frame's content, for `to_child` or `from_child` to decode."""
    return _encoder.encode(frame)


def frame_bytes(frame: ToChild | FromChild) -> bytes:
    """Return a frame ready to be written. Raises ValueError above `FRAME_LIMIT`."""
    return delimited(encoded(frame), FRAME_LIMIT)
