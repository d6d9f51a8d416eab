"""Whether an announcement counts now, may count soon, or never: pure rules over what a node knows of the chain.

Signature and encoding are checked before (`protocols.wire`); here stand the rules on swarm, sender, round, stage,
seed, size and repetition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from protocols.identifiers import Address, Digest, Seed
from protocols.manifest import Limits
from protocols.schedule import step_number
from protocols.wire import Announcement

Reason = Literal[
    "", "swarm", "stage", "size", "round", "early", "seed", "next", "signature", "unregistered", "duplicate",
    "equivocation",
]  # fmt: skip
"""Why: "next" holds, the empty one accepts, every other one drops."""


class Window(Protocol):
    """What must be known of the chain; `node.ports.RoundWindow` has this shape."""

    @property
    def swarm(self) -> Digest:
        """The swarm's id."""

    @property
    def round(self) -> int:
        """The current round."""

    @property
    def stage(self) -> int:
        """The current stage."""

    @property
    def stages(self) -> int:
        """Stages of a round."""

    @property
    def seeds(self) -> Mapping[int, Seed]:
        """Seed of every round that is still accepted."""

    @property
    def peers(self) -> frozenset[Address]:
        """Who may announce in the current round."""


class Admission(msgspec.Struct, frozen=True):
    """What to do with an announcement: `accept`, `hold` until the window moves, or `drop` and count `reason`."""

    outcome: Literal["accept", "hold", "drop"]
    reason: Reason


class Slot(msgspec.Struct, frozen=True):
    """What a peer may say once: its announcement of a stage, bound to the seed so that a reorg opens a new one."""

    peer: Address
    round: int
    stage: int
    seed: Seed


class Equivocation(msgspec.Struct, frozen=True):
    """Evidence: one signer announced two bodies for one slot."""

    slot: Slot
    first: Digest
    second: Digest


def slot_of(said: Announcement, signer: Address) -> Slot:
    """Return the slot that an announcement fills."""
    return Slot(peer=signer, round=said.round, stage=said.stage, seed=said.seed)


def admit(
    said: Announcement,
    signer: Address,
    origin: Address | None,
    window: Window,
    limits: Limits,
    announced: Digest | None,
) -> Admission:
    """Judge a well-formed announcement.

    `signer` was recovered from its signature; `origin` is the peer that claims to have published it, where that is
    known (a wrong signature recovers to a stranger, so it shows only by the difference); `announced` is the digest
    already accepted for this slot, if any.
    """
    reason = _shape_reason(said, window, limits) or _place_reason(said, window, limits)
    if reason in ("", "next"):
        reason = _sender_reason(said, signer, origin, window, reason) or reason
    if reason == "" and announced is not None:
        reason = "duplicate" if announced == said.body else "equivocation"
    return Admission(outcome={"": "accept", "next": "hold"}.get(reason, "drop"), reason=reason)  # type: ignore[arg-type]


def _shape_reason(said: Announcement, window: Window, limits: Limits) -> Reason:
    if said.swarm != window.swarm:
        return "swarm"
    if said.size > limits.body or len(said.inline) > limits.inline:
        return "size"
    return "stage" if said.stage >= window.stages else ""


def _place_reason(said: Announcement, window: Window, limits: Limits) -> Reason:
    """Return where the announcement stands in time; a round's seed is unknown before the round begins."""
    step = step_number(said.round, said.stage, window.stages)
    now = step_number(window.round, window.stage, window.stages)
    if step > now + 1:
        return "early"
    if said.round > window.round:
        return "next"
    if said.round < window.round - limits.rounds_kept or said.round not in window.seeds:
        return "round"
    if said.seed != window.seeds[said.round]:
        return "seed"
    return "next" if step == now + 1 else ""


def _sender_reason(
    said: Announcement, signer: Address, origin: Address | None, window: Window, place: Reason
) -> Reason:
    """Return why the signer has no say. Who may speak in the next round is not known yet: then a stranger is held,
    unless the signature is evidently not the publisher's."""
    if signer in window.peers:
        return ""
    if origin is not None and origin != signer:
        return "signature"
    return "" if place == "next" and said.round > window.round else "unregistered"
