"""Between the coordinator's interface and the node's words: calls from commands, inputs from events, verdicts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from contracts import load_artifact
from node.chain.abi import Abi, Event, Revert
from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    CommitVote,
    RegisterNode,
    ReportReward,
    RevealVote,
)
from node.machine.inputs import PeerRegistered, StageOpened
from protocols.identifiers import Address, Digest, keccak256
from protocols.voting import vote_commitment, vote_salt

ABI = Abi(load_artifact().abi)

REWARD_SCALE = 1_000_000
"""Rewards travel in millionths."""

COMMITTED, VOTED = 1, 2
"""States of a ballot in the contract."""

Verdict = Literal["done", "retry", "failed"]


class CoordinatorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the contract fixed at its deployment, and the digest of the manifest in force."""

    chain_id: int
    contract: Address
    deployment_block: int
    deployment_block_hash: bytes
    manifest_digest: Digest
    stage_seconds: tuple[int, ...]
    voting_mode: str


@dataclass(frozen=True)
class Voter:
    """Who votes, and from what the salts of sealed votes are derived; the secret never shows in a log."""

    address: Address
    secret: bytes = field(repr=False)
    swarm: Digest


def key_of(command: ChainCommand) -> str:
    """Return the outbox key under which a command is kept and settled."""
    match command:
        case RegisterNode():
            return "register"
        case AdvanceStage():
            return f"advance:{command.round}:{command.stage}"
        case CommitVote():
            return f"commit:{command.round}:{command.seed.hex()}"
        case RevealVote():
            return f"reveal:{command.round}:{command.seed.hex()}"
        case CastVote():
            return f"vote:{command.round}:{command.seed.hex()}"
        case ReportReward():
            return f"reward:{command.round}:{command.stage}"


def call_data(command: ChainCommand, voter: Voter) -> str:
    """Return the transaction data ("0x...") that carries a command out."""
    match command:
        case RegisterNode():
            return ABI.call("register")
        case AdvanceStage():
            return ABI.call("advance")
        case CommitVote():
            return ABI.call("commitVote", command.round, commitment(command, voter))
        case RevealVote():
            salt = vote_salt(voter.secret, voter.swarm, command.seed)
            return ABI.call("revealVote", command.round, ascending(command.winners), salt)
        case CastVote():
            return ABI.call("submitWinners", command.round, ascending(command.winners))
        case ReportReward():
            return ABI.call("submitReward", command.round, command.stage, round(command.reward * REWARD_SCALE))


def guarded(command: CommitVote | RevealVote | CastVote, voter: Voter) -> tuple[str, bytes]:
    """Return the kind and the bytes of a vote, as the vote protection keeps them."""
    match command:
        case CommitVote():
            return "commit", commitment(command, voter)
        case RevealVote():
            return "reveal", packed(command.winners)
        case CastVote():
            return "vote", packed(command.winners)


def own_ballot(command: CommitVote | RevealVote | CastVote, voter: Voter) -> tuple[int, bytes]:
    """Return the least state, and the commitment, of a ballot in which this vote has been done already."""
    if isinstance(command, CastVote):
        return VOTED, keccak256(packed(command.winners))
    return (COMMITTED if isinstance(command, CommitVote) else VOTED), commitment(command, voter)


def commitment(command: CommitVote | RevealVote, voter: Voter) -> bytes:
    """Return what this node commits to for these winners."""
    salt = vote_salt(voter.secret, voter.swarm, command.seed)
    return vote_commitment(command.round, command.seed, voter.address, ascending(command.winners), salt)


def ascending(winners: Sequence[Address]) -> list[Address]:
    """Return winners in the only order that the contract takes."""
    return sorted(winners)


def packed(winners: Sequence[Address]) -> bytes:
    """Return `abi.encodePacked(address[])`: a 32-byte word for each winner."""
    return b"".join(bytes(12) + bytes.fromhex(winner[2:]) for winner in ascending(winners))


def verdict(command: ChainCommand, revert: Revert) -> Verdict:
    """Say what a refusal means for a command: done by somebody already, too soon, or never to succeed.

    `AlreadyVoted` is not decided here: it depends on what stands in the ballot.
    """
    match command, revert.name:
        case RegisterNode(), "AlreadyRegistered":
            return "done"
        case ReportReward(), "RewardAlreadySubmitted":
            return "done"
        case AdvanceStage(), "TooEarly" | "SeedNotReady":
            return "retry"
        case ((CommitVote() | RevealVote() | CastVote()), "WrongStep"):
            return "retry" if revert.fields["current"] < revert.fields["expected"] else "failed"
        case ReportReward(), "WrongRound":
            return "retry" if revert.fields["given"] > revert.fields["current"] else "failed"
        case ReportReward(), "WrongStage":
            return "retry"
        case _:
            return "failed"


def stage_opened(event: Event, opened: int, block: int) -> StageOpened | None:
    """Return the input for a `StageAdvanced` event in a block of chain time `opened`; None for other events."""
    if event.name != "StageAdvanced":
        return None
    fields = event.fields
    return StageOpened(fields["round"], fields["stage"], fields["seed"], fields["deadline"], opened, block)


def peer_registered(event: Event) -> PeerRegistered | None:
    """Return the input for a `PeerRegistered` event; None for other events."""
    if event.name != "PeerRegistered":
        return None
    return PeerRegistered(str(event.fields["node"]).lower(), event.fields["since"])
