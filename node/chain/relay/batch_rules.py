"""How the contract takes each kind of signed message in a batch: the chain's half of the table of kinds. Pure.

The other half, `protocols.signed_messages.MESSAGE_RULES`, says what is signed, by whom, and in which window it counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from node.chain.contract.reader import RelayReader
from node.chain.contract.swarm import COMMITTED, EMPTY, KEPT_BYTES, Voter, ascending, commitment, millionths
from node.chain.relay import batch_calls as calls
from node.machine.commands import CastVote, ChainCommand, CommitVote, OwnMessage, ReportReward, RevealVote
from protocols.identifiers import Address, Seed
from protocols.signed_messages import (
    MessageKind,
    MessageTopic,
    RelayedMessage,
    SignedCommitment,
    SignedMessage,
    SignedReward,
    SignedVote,
    VoteReveal,
)
from protocols.typed_data import Commitment, Reward, TypedMessage, Vote
from protocols.voting import vote_commitment, vote_salt

Sign: TypeAlias = Callable[[TypedMessage], bytes]
Ballot: TypeAlias = tuple[int, bytes]
"""A ballot's state, and what the contract keeps of its commitment."""

CommandT = TypeVar("CommandT", bound=OwnMessage)


@dataclass(frozen=True)
class OwnMessageRules(Generic[CommandT]):
    """How a node makes its own messages of a kind: from which command of the machine, and what it signs."""

    command: type[CommandT]
    make: Callable[[CommandT, Voter, Sign], SignedMessage]


@dataclass(frozen=True)
class BatchRules:
    """How the contract takes messages of a kind.

    `call` is the batch call ("0x...") for good messages. `read` returns what each of some nodes has on chain for a
    round, `is_missing` says whether a message would add to that; without `read`, each message is simulated by itself.
    `own` is None for what only owners sign.
    """

    call: Callable[[MessageTopic, Sequence[RelayedMessage]], str]
    read: Callable[[RelayReader, Sequence[Address], int], Awaitable[Sequence[Any]]] | None = None
    is_missing: Callable[[RelayedMessage, Seed, Any], bool] = lambda relayed, seed, found: True
    own: OwnMessageRules[Any] | None = None


# --- a node's own messages --------------------------------------------------------------------------------------------


def _commitment(command: CommitVote, voter: Voter, sign: Sign) -> SignedCommitment:
    typed = Commitment(command.round, command.seed, commitment(command, voter))
    return SignedCommitment.of(typed, sign(typed))


def _reveal(command: RevealVote, voter: Voter, sign: Sign) -> VoteReveal:
    salt = vote_salt(voter.secret, voter.swarm, command.seed)
    return VoteReveal(command.round, tuple(ascending(command.winners)), salt)


def _vote(command: CastVote, voter: Voter, sign: Sign) -> SignedVote:
    typed = Vote(command.round, command.seed, tuple(ascending(command.winners)))
    return SignedVote.of(typed, sign(typed))


def _reward(command: ReportReward, voter: Voter, sign: Sign) -> SignedReward:
    typed = Reward(command.round, command.stage, command.seed, millionths(command.reward))
    return SignedReward.of(typed, sign(typed))


# --- what is missing on chain -----------------------------------------------------------------------------------------


def _is_unvoted(relayed: RelayedMessage, seed: Seed, ballot: Ballot) -> bool:
    return ballot[0] == EMPTY


def _opens(relayed: RelayedMessage, seed: Seed, ballot: Ballot) -> bool:
    """Return True if the ballot holds the commitment that a reveal opens."""
    reveal: Any = relayed.message
    sealed = vote_commitment(reveal.round, seed, relayed.peer, reveal.winners, reveal.salt)
    return ballot == (COMMITTED, sealed[:KEPT_BYTES])


def _is_unreported(relayed: RelayedMessage, seed: Seed, stages: int) -> bool:
    """Return True if the stage's bit is not set among those of the rewards on chain."""
    reward: Any = relayed.message
    return not stages >> reward.stage & 1


# --- the table --------------------------------------------------------------------------------------------------------


def _messages(batch: Sequence[RelayedMessage]) -> list[Any]:
    return [relayed.message for relayed in batch]


BATCH_RULES: dict[MessageKind, BatchRules] = {
    MessageKind.DELEGATION: BatchRules(call=lambda topic, batch: calls.registrations_call(_messages(batch))),
    MessageKind.REVOCATION: BatchRules(call=lambda topic, batch: calls.revocations_call(_messages(batch))),
    MessageKind.COMMIT: BatchRules(
        call=lambda topic, batch: calls.commitments_call(topic.round, _messages(batch)),
        read=lambda reader, nodes, round_number: reader.ballots(nodes, round_number),
        is_missing=_is_unvoted,
        own=OwnMessageRules(CommitVote, _commitment),
    ),
    MessageKind.REVEAL: BatchRules(
        call=lambda topic, batch: calls.reveals_call(
            topic.round, [(relayed.peer, reveal) for relayed, reveal in zip(batch, _messages(batch), strict=True)]
        ),
        read=lambda reader, nodes, round_number: reader.ballots(nodes, round_number),
        is_missing=_opens,
        own=OwnMessageRules(RevealVote, _reveal),
    ),
    MessageKind.VOTE: BatchRules(
        call=lambda topic, batch: calls.votes_call(topic.round, _messages(batch)),
        read=lambda reader, nodes, round_number: reader.ballots(nodes, round_number),
        is_missing=_is_unvoted,
        own=OwnMessageRules(CastVote, _vote),
    ),
    MessageKind.REWARD: BatchRules(
        call=lambda topic, batch: calls.rewards_call(topic.round, topic.stage, _messages(batch)),
        read=lambda reader, nodes, round_number: reader.rewards(nodes, round_number),
        is_missing=_is_unreported,
        own=OwnMessageRules(ReportReward, _reward),
    ),
}

OWN_MESSAGES: dict[type[ChainCommand], OwnMessageRules[Any]] = {
    rules.own.command: rules.own for rules in BATCH_RULES.values() if rules.own
}
"""By the machine's command."""
