"""The one picture of a node that `swarm status`, the HTTP page, the metrics and the demo show."""

from __future__ import annotations

from typing import Literal

import msgspec

from node.machine.phases import VotePhase
from protocols.identifiers import Address

Phase = Literal["starting", "syncing", "doppelganger-protection", "idle", "working", "publishing", "voting", "draining"]
Presence = Literal["present", "absent", "unknown"]


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What this node knows of one registered peer in the current round."""

    address: Address
    groups: int
    reward: float
    peer_score: float = 0.0
    """What this node thinks of it: 0 if unknown, at most 10; graylisted at -35 and below."""


class VoteStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One of this node's votes and its transactions."""

    round: int
    winners: tuple[Address, ...]
    phase: VotePhase
    transactions: tuple[str, ...] = ()


class CurvePoint(msgspec.Struct, frozen=True, array_like=True):
    """One evaluation: round, local time in Unix seconds, held-out accuracy in [0, 1]."""

    round: int
    at: float
    accuracy: float


class RewardPoint(msgspec.Struct, frozen=True, array_like=True):
    """This node's own rollouts of a stage: round, mean reward, stage, and the share of completions that end in the
    right answer (0.0 where the stage asks for none)."""

    round: int
    reward: float
    stage: int = 0
    right: float = 0.0


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the node's first start."""

    rounds_worked: int = 0
    rounds_skipped: int = 0
    stages_skipped: int = 0
    updates: int = 0
    own_groups: int = 0
    external_groups: int = 0
    votes: int = 0
    votes_failed: int = 0
    bodies_accepted: int = 0
    bodies_refused: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the machine. Times are local, in Unix seconds.

    `paused_until` is 0.0 where the swarm is not paused, `delegated_until` where it is not known or for ever.
    """

    address: Address
    phase: Phase
    round: int
    stage: int
    deadline: float
    registered: bool
    chain: Presence
    network: Presence
    trainer: Presence
    connected: int
    reward: float
    accuracy: float
    paused_until: float = 0.0
    delegated_until: float = 0.0
    peers: tuple[PeerStatus, ...] = ()
    votes: tuple[VoteStatus, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    rewards: tuple[RewardPoint, ...] = ()
    totals: Totals = Totals()
    refused: dict[str, int] = {}
    """Bodies of peers that count for nothing, by reason (docs/reference/reasons.md), since the first start."""
    last_skip: str = ""
    note: str = ""
    """What keeps the node from its full work, in one line; empty where nothing does."""
    name: str = ""
    peer_id: str = ""
    """This node's peer id in the network, and the three words that it makes."""
