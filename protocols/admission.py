"""The validation rules of announcements: pure, over what a node knows of the chain.

Signature and encoding are checked before (`protocols.wire`). These rules cover swarm, signer, round, stage, seed, size
and repetition. The table `REASONS` holds what follows from each reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, Protocol

import msgspec

from protocols.identifiers import Address, Digest, Seed
from protocols.manifest import Limits
from protocols.schedule import step_number
from protocols.wire import Announcement


class MessageAcceptance(StrEnum):
    """What GossipSub does with a message (libp2p's extended validators): forward it, drop it, or drop it and hold it
    against the peer that forwarded it."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    REJECT = "reject"


Reason = Literal[
    "", "early", "equivocation", "duplicate", "round", "unregistered", "future", "seed", "no-window", "stage",
    "signature", "version", "size", "schema", "digest", "swarm", "session",
]  # fmt: skip
"""Why an announcement is not accepted; the empty one accepts it."""


class ReasonRule(msgspec.Struct, frozen=True):
    """What follows from a reason.

    `counts_against` says whose allowance a message with this reason uses up. An author may fill its slots, whoever
    forwards what it signed. A forwarder is penalised only for what no honest peer forwards (REJECT); what an honest
    peer may see in another way than this node does (IGNORE) only counts against its limit of useless messages.
    """

    acceptance: MessageAcceptance
    counts_against: Literal["author", "forwarder"]


_ACCEPT, _IGNORE, _REJECT = MessageAcceptance.ACCEPT, MessageAcceptance.IGNORE, MessageAcceptance.REJECT

REASONS: dict[Reason, ReasonRule] = {
    "": ReasonRule(_ACCEPT, "author"),
    # Two bodies for one slot. The first proof of it is accepted all the same, so that everybody learns of it. Which two
    # bodies a peer hears first differs, so an honest forwarder may bring two that are useless here.
    "equivocation": ReasonRule(_IGNORE, "author"),
    # Queued until its stage opens, as far as there is room; an author may see the block before this node.
    "early": ReasonRule(_IGNORE, "forwarder"),
    # A peer that was alone announces everything again. Views of the chain, and so of who is registered, differ.
    "duplicate": ReasonRule(_IGNORE, "forwarder"),
    "round": ReasonRule(_IGNORE, "forwarder"),
    "unregistered": ReasonRule(_IGNORE, "forwarder"),
    # This node lags or follows another fork: its neighbours send on what is right.
    "future": ReasonRule(_IGNORE, "forwarder"),
    "seed": ReasonRule(_IGNORE, "forwarder"),
    "no-window": ReasonRule(_IGNORE, "forwarder"),
    # A signer that is registered elsewhere may be forwarded by who has seen the registration.
    "signature": ReasonRule(_IGNORE, "forwarder"),
    "version": ReasonRule(_IGNORE, "forwarder"),
    # An honest node never forwards these, whatever it knows of the chain.
    "stage": ReasonRule(_REJECT, "forwarder"),
    "size": ReasonRule(_REJECT, "forwarder"),
    "schema": ReasonRule(_REJECT, "forwarder"),
    "digest": ReasonRule(_REJECT, "forwarder"),
    "swarm": ReasonRule(_REJECT, "forwarder"),
    "session": ReasonRule(_REJECT, "forwarder"),
}
"""Every reason, and what follows from it."""


class Window(Protocol):
    """What must be known of the chain; `node.ports.network.RoundWindow` has this shape."""

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


class Slot(msgspec.Struct, frozen=True):
    """A peer's one announcement of a stage. It is bound to the seed, so that a reorg opens a new slot."""

    peer: Address
    round: int
    stage: int
    seed: Seed


class Equivocation(msgspec.Struct, frozen=True):
    """Evidence: one signer announced two bodies for one slot."""

    slot: Slot
    first: Digest
    second: Digest


def slot_of(announcement: Announcement, signer: Address) -> Slot:
    """Return the slot that an announcement fills."""
    return Slot(peer=signer, round=announcement.round, stage=announcement.stage, seed=announcement.seed)


def check_announcement(
    announcement: Announcement,
    signer: Address,
    origin: Address | None,
    window: Window,
    limits: Limits,
    known: Digest | None,
) -> Reason:
    """Return why a well-formed announcement is not accepted now, or "" where it is.

    `signer` was recovered from the signature. `origin` is the peer that claims to have published it, where that is
    known: a wrong signature recovers to some other address, so it shows only by the difference. `known` is the digest
    already accepted for this slot, if any.
    """
    reason = _shape_reason(announcement, window, limits) or _time_reason(announcement, window, limits)
    if reason in ("", "early"):
        reason = _signer_reason(announcement, signer, origin, window, reason) or reason
    if reason == "" and known is not None:
        return "duplicate" if known == announcement.body else "equivocation"
    return reason


def _shape_reason(announcement: Announcement, window: Window, limits: Limits) -> Reason:
    if announcement.swarm != window.swarm:
        return "swarm"
    if announcement.size > limits.body or len(announcement.inline) > limits.inline:
        return "size"
    return "stage" if announcement.stage >= window.stages else ""


def _time_reason(announcement: Announcement, window: Window, limits: Limits) -> Reason:
    """Compare round, stage and seed with the window. A round's seed is unknown before the round begins."""
    step = step_number(announcement.round, announcement.stage, window.stages)
    now = step_number(window.round, window.stage, window.stages)
    if step > now + 1:
        return "future"
    if announcement.round > window.round:
        return "early"
    if announcement.round < window.round - limits.rounds_kept or announcement.round not in window.seeds:
        return "round"
    if announcement.seed != window.seeds[announcement.round]:
        return "seed"
    return "early" if step == now + 1 else ""


def _signer_reason(
    announcement: Announcement, signer: Address, origin: Address | None, window: Window, reason: Reason
) -> Reason:
    """Return why the signer may not announce.

    Who is registered in the next round is not known yet. So an early announcement by an unregistered signer waits,
    unless its origin shows that the signature is wrong.
    """
    if signer in window.peers:
        return ""
    if origin is not None and origin != signer:
        return "signature"
    return "" if reason == "early" and announcement.round > window.round else "unregistered"
