"""Notices: what the machine reports beside its commands, for the log, subscribers and the operator. No service acts on
them."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from protocols.identifiers import Address


class Notice(msgspec.Struct, frozen=True, tag=True):
    """Base of all notices; the tag is the class name."""


class SkippedToRound(Notice, frozen=True):
    """Work was skipped: the node goes on in another stage than it was to work in, and why."""

    from_round: int
    from_stage: int
    round: int
    stage: int
    reason: str


class DelegationEnding(Notice, frozen=True):
    """The owner's delegation ends soon, or is `over`, and what to do. `expiry` is in chain seconds."""

    expiry: int
    over: bool
    reason: str


class BodyUncounted(Notice, frozen=True):
    """The machine itself gave a peer no credit for a body, and why."""

    peer: Address
    round: int
    stage: int
    reason: str


class PeerGraylisted(Notice, frozen=True):
    """A peer's score has fallen so low that its bodies are neither fetched nor voted for."""

    peer: Address
    score: float
    reason: str


AnyNotice: TypeAlias = SkippedToRound | DelegationEnding | BodyUncounted | PeerGraylisted
