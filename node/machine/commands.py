"""What the machine asks for, in the imperative. Services carry commands out and report back with inputs.

Every command may be given again after a crash: carrying it out twice must be harmless. Votes are guarded by the vote
protection, transactions by the outbox key, trainer work by round and stage.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from protocols.carried import Load
from protocols.identifiers import Address, Digest, Seed


class Command(msgspec.Struct, frozen=True, tag=True):
    """Base of all commands; the tag is the class name."""


# --- chain ----------------------------------------------------------------------------------------------------------
# `after` is the local time (Unix seconds) before which a node leaves its message to the relayers.


class RegisterNode(Command, frozen=True):
    """Register this node with the coordinator. Settles under the key `register`."""


class RenewDelegation(Command, frozen=True):
    """Submit the owner's new delegation for this node, which is registered. Settles under `renew:SERIAL`."""

    serial: int


class AdvanceStage(Command, frozen=True):
    """Send `advance` for this stage: it is this node's turn. Settles under `advance:ROUND:STAGE`."""

    round: int
    stage: int


class CommitVote(Command, frozen=True):
    """Commit to the winners of a round. Settles under `commit:ROUND:SEEDHEX`."""

    round: int
    seed: Seed
    winners: tuple[Address, ...]
    after: float = 0.0


class RevealVote(Command, frozen=True):
    """Reveal the committed winners. Settles under `reveal:ROUND:SEEDHEX`."""

    round: int
    seed: Seed
    winners: tuple[Address, ...]
    after: float = 0.0


class CastVote(Command, frozen=True):
    """Submit the winners of a round in the open mode. Settles under `vote:ROUND:SEEDHEX`."""

    round: int
    seed: Seed
    winners: tuple[Address, ...]
    after: float = 0.0


class ReportReward(Command, frozen=True):
    """Submit this node's own reward of a stage. `reward` is a mean in [0, 1]. Settles under `reward:ROUND:STAGE`."""

    round: int
    stage: int
    seed: Seed
    reward: float
    after: float = 0.0


OwnMessage: TypeAlias = CommitVote | RevealVote | CastVote | ReportReward
"""What a node signs, and a relayer may submit."""


class RelayMessages(Command, frozen=True):
    """Submit messages of one kind (`protocols.carried.kind_of`), those that are not on chain yet; nothing of them was
    checked. Settles under `relay:KIND:ROUND:STAGE:TURN`.

    `round` and `stage` are those in which it is done, `turn` counts this node's turns in it; `seed` is that of the
    round which the messages are about, to which their signatures are bound.
    """

    kind: str
    round: int
    stage: int
    seed: Seed
    turn: int
    loads: tuple[Load, ...]


# --- gossip ---------------------------------------------------------------------------------------------------------


class PublishRollouts(Command, frozen=True):
    """Sign and announce this node's body of a stage; without one `size` is 0 and `body` is `protocols.wire.NOTHING`.

    `relays`: this node relays messages in this stage. `attached` are its own commands, whose signed messages are
    part of the announcement.
    """

    round: int
    stage: int
    seed: Seed
    body: Digest
    size: int
    relays: bool = False
    attached: tuple[OwnMessage, ...] = ()


class FetchRollouts(Command, frozen=True):
    """Fetch, check and store a peer's announced body; answer with `RolloutsArrived` or `RolloutsRefused`."""

    peer: Address
    round: int
    stage: int
    seed: Seed
    body: Digest
    size: int


class IntroduceNode(Command, frozen=True):
    """Show every peer this node's delegation until it is registered: a node with funds may submit it."""


# --- trainer --------------------------------------------------------------------------------------------------------


class GenerateRollouts(Command, frozen=True):
    """Sample `groups` groups for the questions assigned to this node in a stage, quoting bodies of earlier stages."""

    round: int
    stage: int
    seed: Seed
    groups: int
    quoted: tuple[Digest, ...] = ()


class TrainOnRollouts(Command, frozen=True):
    """Make `updates` GRPO updates on own and external bodies, done within `seconds`."""

    round: int
    stage: int
    own: Digest
    external: tuple[Digest, ...]
    updates: int
    seconds: float


class AbortWork(Command, frozen=True):
    """Cancel whatever the trainer does: it can no longer count. `reason` goes to the log."""

    round: int
    stage: int
    reason: str


class EvaluateModel(Command, frozen=True):
    """Measure held-out accuracy."""

    round: int


class SaveCheckpoint(Command, frozen=True):
    """Save the trainer's state after a round."""

    round: int


# --- the node itself ------------------------------------------------------------------------------------------------


class SetTimer(Command, frozen=True):
    """Report `TimerFired(name)` at local time `at` (Unix seconds). A timer of the same name is replaced."""

    name: str
    at: float


class EndDoppelgangerProtection(Command, frozen=True):
    """Remove the restore mark and use the node's own peer id: no other node runs with this key."""


class StopNode(Command, frozen=True):
    """End the process in order, with this exit code."""

    code: int
    reason: str


ChainCommand: TypeAlias = RegisterNode | RenewDelegation | AdvanceStage | OwnMessage | RelayMessages
GossipCommand: TypeAlias = PublishRollouts | FetchRollouts | IntroduceNode
TrainerCommand: TypeAlias = GenerateRollouts | TrainOnRollouts | AbortWork | EvaluateModel | SaveCheckpoint
NodeCommand: TypeAlias = SetTimer | EndDoppelgangerProtection | StopNode
AnyCommand: TypeAlias = ChainCommand | GossipCommand | TrainerCommand | NodeCommand
