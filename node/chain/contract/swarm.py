"""Between the coordinator's interface and the node's words: calls from commands, inputs from events, verdicts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from eth_abi.exceptions import DecodingError
from msgspec.structs import astuple

from contracts import load_artifact
from node.chain.contract.abi import Abi, DecodedEvent, Revert
from node.chain.rpc.blocks import Log
from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    CommitVote,
    RegisterNode,
    RelayMessages,
    RenewDelegation,
    ReportReward,
    RevealVote,
)
from node.machine.inputs import PeerRegistered, StageOpened
from protocols.delegation import FOR_EVER
from protocols.identifiers import Address, Digest, keccak256
from protocols.signed_messages import SignedDelegation
from protocols.tally import read_votes
from protocols.typed_data import Domain
from protocols.voting import vote_commitment, vote_salt

ABI = Abi(load_artifact().abi)

REWARD_SCALE = 1_000_000
"""Rewards travel in millionths."""

EMPTY, COMMITTED, VOTED = range(3)
"""States of a ballot in the contract."""

KEPT_BYTES = 23
"""What a ballot keeps of its commitment."""

Verdict = Literal["done", "retry", "wait", "failed"]


class CoordinatorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the contract fixed at its deployment, and the digest of the manifest in force.

    `salt` (32 bytes) belongs to the domain of its signed messages; `quorum` is the percentage of last round's voters
    that close a stage early, at the earliest `earliest` seconds after it opened; both 0 for never.
    """

    chain_id: int
    contract: Address
    deployment_block: int
    deployment_block_hash: bytes
    manifest_digest: Digest
    stage_seconds: tuple[int, ...]
    voting_mode: str
    salt: bytes = bytes(32)
    quorum: int = 0
    earliest: int = 0

    @property
    def has_owners(self) -> bool:
        """Tell whether nodes have owners here, who sign messages: RL Swarm's contract knows neither."""
        return self.salt != bytes(32)

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of this deployment."""
        return Domain(self.chain_id, self.contract, self.salt)


class NodeEntry(msgspec.Struct, frozen=True):
    """A node as the contract has it: `since` is the first round in which it counts, 0 where it is not registered.

    `expiry` in chain seconds, `serial` in milliseconds.
    """

    owner: Address
    since: int
    expiry: int
    serial: int


@dataclass(frozen=True)
class Voter:
    """Who votes, and from what the salts of sealed votes are derived; the secret never shows in a log.

    `delegation` is what a registration brings: the owner's, or the node's own where it is its own owner.
    """

    address: Address
    secret: bytes = field(repr=False)
    swarm: Digest
    delegation: SignedDelegation | None = None


def call_data(command: ChainCommand, voter: Voter) -> str:
    """Return the transaction data ("0x...") that carries a command out. Raises ValueError for `RelayMessages`: what of
    them can be brought is known only when it was compared with the chain."""
    match command:
        case RegisterNode() | RenewDelegation():
            return ABI.call("register", signed_words(voter.delegation))
        case AdvanceStage():
            return ABI.call("advance")
        case CommitVote():
            return ABI.call("commitVote", command.round, command.seed, commitment(command, voter))
        case RevealVote():
            salt = vote_salt(voter.secret, voter.swarm, command.seed)
            return ABI.call("revealVote", command.round, ascending(command.winners), salt)
        case CastVote():
            return ABI.call("submitWinners", command.round, command.seed, ascending(command.winners))
        case ReportReward():
            reward = millionths(command.reward)
            return ABI.call("submitReward", command.round, command.stage, command.seed, reward)
        case RelayMessages():
            raise ValueError(f"{command.topic} is not one call")


def signed_words(signed: SignedDelegation | None) -> tuple[Any, ...]:
    """Return a signed delegation as the contract takes it. Raises ValueError where there is none."""
    if signed is None:
        raise ValueError("a registration needs a signed delegation")
    return astuple(signed.delegation), signed.owner_signature, signed.node_signature


def millionths(reward: float) -> int:
    """Return a mean reward as it travels."""
    return round(reward * REWARD_SCALE)


def is_registered(voter: Voter, entry: NodeEntry, now: int) -> bool:
    """Tell whether the register says of the voter what its delegation would: `now` in chain seconds."""
    if voter.delegation is None or not entry.since:
        return False
    said = voter.delegation.delegation
    return entry.owner == said.owner and entry.expiry >= max(now + 1, min(said.expiry, FOR_EVER))


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
    """Return the least state, and what is kept of the commitment, of a ballot in which this vote is done already."""
    if isinstance(command, CastVote):
        return VOTED, keccak256(packed(command.winners))[:KEPT_BYTES]
    return (COMMITTED if isinstance(command, CommitVote) else VOTED), commitment(command, voter)[:KEPT_BYTES]


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
    """Say what a refusal means for a command: done by somebody already, too soon (by moments, or more), or hopeless.

    `AlreadyVoted` is not decided here: it depends on what stands in the ballot.
    """
    match command, revert.name:
        case _, "Paused":
            return "wait"
        case RegisterNode() | RenewDelegation(), "OldSerial":
            return "done"
        case RelayMessages(), "NothingCounted":
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


def stage_opened(event: DecodedEvent, opened: int, block: int) -> StageOpened | None:
    """Return the input for an event that opens a stage, in a block of chain time `opened`; None for other events."""
    if event.name not in ("RoundAdvanced", "StageAdvanced"):
        return None
    fields = event.fields
    return StageOpened(fields["round"], fields.get("stage", 0), fields["seed"], fields["deadline"], opened, block)


def pause_changed(event: DecodedEvent) -> tuple[int, int] | None:
    """Return until when the swarm is paused and the stage's new deadline, in chain seconds; None for other events."""
    if event.name != "PauseChanged":
        return None
    return event.fields["until"], event.fields["deadline"]


def traces_of(command: CommitVote | RevealVote | CastVote | ReportReward, node: Address) -> list[str]:
    """Return the topics by which the event is found that a node's vote or reward leaves, whoever brought it."""
    match command:
        case CommitVote():
            return [ABI.topic("VoteCommitted"), _topic(command.round), _topic(int(node, 16))]
        case RevealVote() | CastVote():
            return [ABI.topic("VotesCounted"), _topic(command.round)]
        case ReportReward():
            return [ABI.topic("RewardSubmitted"), *map(_topic, (command.round, command.stage, int(node, 16)))]


def is_trace(log: Log, node: Address) -> bool:
    """Tell whether a log found by `traces_of` is of this node: votes of many are told in one event.

    Raises `eth_abi`'s `DecodingError` where it is no log of this contract.
    """
    event = ABI.event(log)
    if event is None or event.name != "VotesCounted":
        return event is not None
    try:
        votes = read_votes(event.fields["round"], event.fields["names"], event.fields["votes"])
    except ValueError as error:
        raise DecodingError(str(error)) from error
    return any(vote.voter == node for vote in votes)


def _topic(value: int) -> str:
    return f"0x{value:064x}"


def peer_registered(event: DecodedEvent) -> PeerRegistered | None:
    """Return the input for a `PeerRegistered` event; None for other events."""
    if event.name != "PeerRegistered":
        return None
    return PeerRegistered(str(event.fields["node"]).lower(), event.fields["since"], str(event.fields["owner"]).lower())
