"""What the machine asks for, in the imperative. Services carry commands out and report back with inputs.

Every command may be given again after a crash: carrying it out twice must be harmless. Votes are guarded by the vote
protection, transactions by the outbox key, trainer work by round and stage.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import msgspec

from node.machine.transaction_keys import AdvanceKey, MessageKey, RegistrationKey, RelayKey, RenewalKey
from protocols.identifiers import Address, Digest, Seed
from protocols.signed_messages import MessageKind, MessageTopic, RelayedMessage


class Command(msgspec.Struct, frozen=True, tag=True):
    """Base of all commands; the tag is the class name."""


# --- chain ----------------------------------------------------------------------------------------------------------
# `after` is the local time (Unix seconds) before which a node leaves its message to the relayers.


class RegisterNode(Command, frozen=True):
    """Register this node with the coordinator."""

    @property
    def key(self) -> RegistrationKey:
        """What it settles under."""
        return RegistrationKey()


class RenewDelegation(Command, frozen=True):
    """Submit the owner's new delegation for this node, which is registered."""

    serial: int

    @property
    def key(self) -> RenewalKey:
        """What it settles under."""
        return RenewalKey(self.serial)


class AdvanceStage(Command, frozen=True):
    """Send `advance` for this stage: it is this node's turn."""

    round: int
    stage: int

    @property
    def key(self) -> AdvanceKey:
        """What it settles under."""
        return AdvanceKey(self.round, self.stage)


class VoteCommand(Command, frozen=True):
    """Base of the commands of a vote."""

    kind: ClassVar[MessageKind]
    round: int
    seed: Seed
    winners: tuple[Address, ...]
    after: float = 0.0

    @property
    def key(self) -> MessageKey:
        """What it settles under."""
        return MessageKey(MessageTopic(self.kind, self.round), self.seed)


class CommitVote(VoteCommand, frozen=True):
    """Commit to the winners of a round."""

    kind = MessageKind.COMMIT


class RevealVote(VoteCommand, frozen=True):
    """Reveal the committed winners."""

    kind = MessageKind.REVEAL


class CastVote(VoteCommand, frozen=True):
    """Submit the winners of a round in the open mode."""

    kind = MessageKind.VOTE


class ReportReward(Command, frozen=True):
    """Submit this node's own reward of a stage. `reward` is a mean in [0, 1]."""

    round: int
    stage: int
    seed: Seed
    reward: float
    after: float = 0.0

    @property
    def key(self) -> MessageKey:
        """What it settles under."""
        return MessageKey(MessageTopic(MessageKind.REWARD, self.round, self.stage))


OwnMessage: TypeAlias = CommitVote | RevealVote | CastVote | ReportReward
"""What a node signs, and a relayer may submit."""


class RelayMessages(Command, frozen=True):
    """Submit messages of one topic, those that are not on chain yet. Nothing of them was checked.

    `round` and `stage` are those in which it is done, `turn` counts this node's turns in it. `seed` is that of the
    round which the messages are about: their signatures are bound to it.
    """

    topic: MessageTopic
    round: int
    stage: int
    seed: Seed
    turn: int
    messages: tuple[RelayedMessage, ...]

    @property
    def key(self) -> RelayKey:
        """What it settles under."""
        return RelayKey(self.topic, self.round, self.stage, self.turn)


# --- gossip ---------------------------------------------------------------------------------------------------------


class PublishRollouts(Command, frozen=True):
    """Sign and announce this node's body of a stage; without one `size` is 0 and `body` is `protocols.wire.NOTHING`.

    `relays` tells the others that this node relays in this stage; `attached` are its own commands whose signed
    messages travel with the announcement.
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
    """Show every peer this node's delegation until it is registered: somebody with funds may submit it."""


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
