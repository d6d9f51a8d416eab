"""Our own contract in the node's words: calls from commands, inputs from events, what errors mean. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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
    OwnMessage,
    RegisterNode,
    RelayMessages,
    RenewDelegation,
    ReportReward,
    RevealVote,
    VoteCommand,
)
from node.machine.inputs import PeerRegistered, StageOpened
from protocols.delegation import FOR_EVER
from protocols.deployment import NodeEntry
from protocols.identifiers import Address, Digest, keccak256
from protocols.signed_messages import SignedDelegation
from protocols.tally import read_votes
from protocols.voting import vote_commitment, vote_salt

ABI = Abi(load_artifact().abi)

REWARD_SCALE = 1_000_000
"""The contract takes rewards in millionths."""

EMPTY, COMMITTED, VOTED = range(3)
"""States of a ballot in the contract."""

KEPT_BYTES = 23
"""What a ballot keeps of its commitment."""

SettlementVerdict = Literal["done", "retry", "wait", "compare", "failed"]
"""What a revert means: done by somebody already; too soon, by moments or by more; to be compared with what is on
chain (`CoordinatorReader.is_on_chain`); never."""


@dataclass(frozen=True)
class Voter:
    """Who votes. The salts of sealed votes are derived from `secret`, which never shows in a log.

    `delegation` is what a registration submits: the owner's, or the node's own where it is its own owner.
    """

    address: Address
    secret: bytes = field(repr=False)
    swarm: Digest
    delegation: SignedDelegation | None = None


def call_data(command: ChainCommand, voter: Voter) -> str:
    """Return the transaction data ("0x...") of a command.

    Raises ValueError for `RelayMessages`: which of them are missing is known only after a look at the chain.
    """
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
    """Return a mean reward as the contract takes it."""
    return round(reward * REWARD_SCALE)


def is_registered(voter: Voter, entry: NodeEntry, now: int) -> bool:
    """Return True if the register has what the voter's delegation would add; `now` in chain seconds."""
    if voter.delegation is None or not entry.since:
        return False
    said = voter.delegation.delegation
    return entry.owner == said.owner and entry.expiry >= max(now + 1, min(said.expiry, FOR_EVER))


def protection_record(command: VoteCommand, voter: Voter) -> tuple[str, bytes]:
    """Return the kind and the bytes of a vote, as the vote protection keeps them."""
    payload = commitment(command, voter) if isinstance(command, CommitVote) else packed(command.winners)
    return command.kind.value, payload


def own_ballot(command: VoteCommand, voter: Voter) -> tuple[int, bytes]:
    """Return the least state, and what is kept of the commitment, of a ballot in which this vote is done already."""
    if isinstance(command, CastVote):
        return VOTED, keccak256(packed(command.winners))[:KEPT_BYTES]
    return (COMMITTED if isinstance(command, CommitVote) else VOTED), commitment(command, voter)[:KEPT_BYTES]


def commitment(command: VoteCommand, voter: Voter) -> bytes:
    """Return what this node commits to for these winners."""
    salt = vote_salt(voter.secret, voter.swarm, command.seed)
    return vote_commitment(command.round, command.seed, voter.address, ascending(command.winners), salt)


def ascending(winners: Sequence[Address]) -> list[Address]:
    """Return winners in the only order that the contract takes."""
    return sorted(winners)


def packed(winners: Sequence[Address]) -> bytes:
    """Return `abi.encodePacked(address[])`: a 32-byte word for each winner."""
    return b"".join(bytes(12) + bytes.fromhex(winner[2:]) for winner in ascending(winners))


def classify(command: ChainCommand, revert: Revert) -> SettlementVerdict:
    """Return what a revert means for a command."""
    match command, revert.name:
        case _, "AlreadyVoted":
            return "compare"
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
    """Return the pause's end and the stage's new deadline, in chain seconds; None for other events."""
    if event.name != "PauseChanged":
        return None
    return event.fields["until"], event.fields["deadline"]


def inclusion_topics(command: OwnMessage, node: Address) -> list[str]:
    """Return the topics of the event that a node's vote or reward leaves, whoever sent it."""
    match command:
        case CommitVote():
            return [ABI.topic("VoteCommitted"), _topic(command.round), _topic(int(node, 16))]
        case ReportReward():
            return [ABI.topic("RewardSubmitted"), *map(_topic, (command.round, command.stage, int(node, 16)))]
        case _:
            return [ABI.topic("VotesCounted"), _topic(command.round)]


def includes(log: Log, node: Address) -> bool:
    """Return True if a log found by `inclusion_topics` is about this node: one event may hold many nodes' votes.

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
