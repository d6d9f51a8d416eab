"""What the machine asks for, in the imperative. Services carry commands out and report back with inputs.

Every command may be given again after a crash: carrying it out twice must be harmless. Votes are guarded by the vote
protection, transactions by the outbox key, trainer work by round and stage.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from protocols.identifiers import Address, Digest, Seed


class Command(msgspec.Struct, frozen=True, tag=True):
    """Base of all commands; the tag is the class name."""


# --- chain ----------------------------------------------------------------------------------------------------------


class RegisterNode(Command, frozen=True):
    """Register this node with the coordinator. Settles under the key `register`."""


class AdvanceStage(Command, frozen=True):
    """Send `advance` for this stage: it is this node's turn. Settles under `advance:ROUND:STAGE`."""

    round: int
    stage: int


class CommitVote(Command, frozen=True):
    """Commit to the winners of a round. Settles under `commit:ROUND:SEEDHEX`."""

    round: int
    seed: Seed
    winners: tuple[Address, ...]


class RevealVote(Command, frozen=True):
    """Reveal the committed winners. Settles under `reveal:ROUND:SEEDHEX`."""

    round: int
    seed: Seed
    winners: tuple[Address, ...]


class CastVote(Command, frozen=True):
    """Submit the winners of a round in the open mode. Settles under `vote:ROUND:SEEDHEX`."""

    round: int
    seed: Seed
    winners: tuple[Address, ...]


class ReportReward(Command, frozen=True):
    """Submit this node's own reward of a stage. `reward` is a mean in [0, 1]. Settles under `reward:ROUND:STAGE`."""

    round: int
    stage: int
    seed: Seed
    reward: float


# --- gossip ---------------------------------------------------------------------------------------------------------


class PublishRollouts(Command, frozen=True):
    """Sign and announce this node's body of a stage."""

    round: int
    stage: int
    seed: Seed
    body: Digest
    size: int


class FetchRollouts(Command, frozen=True):
    """Fetch, check and store a peer's announced body; answer with `RolloutsArrived` or `RolloutsRefused`."""

    peer: Address
    round: int
    stage: int
    seed: Seed
    body: Digest
    size: int


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


class SkipToRound(Command, frozen=True):
    """Nothing to carry out: tells operator and metrics that work was skipped, and why."""

    from_round: int
    from_stage: int
    round: int
    stage: int
    reason: str


class EndListening(Command, frozen=True):
    """The restored or copied identity is this node's alone: forget that it was restored."""


class StopNode(Command, frozen=True):
    """End the process in order, with this exit code."""

    code: int
    reason: str


ChainCommand: TypeAlias = RegisterNode | AdvanceStage | CommitVote | RevealVote | CastVote | ReportReward
GossipCommand: TypeAlias = PublishRollouts | FetchRollouts
TrainerCommand: TypeAlias = GenerateRollouts | TrainOnRollouts | AbortWork | EvaluateModel | SaveCheckpoint
NodeCommand: TypeAlias = SetTimer | SkipToRound | EndListening | StopNode
AnyCommand: TypeAlias = ChainCommand | GossipCommand | TrainerCommand | NodeCommand
