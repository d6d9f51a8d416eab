"""The coordinator's signed messages: what travels, what is signed, and when the contract takes it.

Nodes attach these messages to their announcements; a node with funds submits them for the others (`docs/relay.md`).
Each is complete but for what the receiver knows: who announced it, the deployment's EIP-712 domain and the round's
seed. `MESSAGE_RULES` is the table of all kinds; how the contract takes a batch of a kind is the table of
`node.chain.relay.batch_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from protocols.identifiers import Address, Seed
from protocols.schedule import commit_step, reveal_step, step_number
from protocols.typed_data import Commitment, Delegation, Revocation, Reward, TypedMessage, Vote
from protocols.voting import MAX_WINNERS

MAX_ATTACHED = 8
"""Messages in one announcement."""
MAX_WALLET_SIGNATURE = 1024
"""Bytes of an owner's signature: 65 from a key, more from a contract wallet (ERC-1271)."""

Natural = Annotated[int, Meta(ge=0)]
"""MessagePack has no integer above 64 bits."""
Stage = Annotated[int, Meta(ge=0, lt=16)]

Signature = Annotated[bytes, Meta(min_length=65, max_length=65)]
OwnerSignature = Annotated[bytes, Meta(min_length=65, max_length=MAX_WALLET_SIGNATURE)]
Word = Annotated[bytes, Meta(min_length=32, max_length=32)]
HexAddress = Annotated[str, Meta(pattern="^0x[0-9a-f]{40}$")]
Winners = Annotated[tuple[HexAddress, ...], Meta(min_length=1, max_length=MAX_WINNERS)]


class MessageKind(StrEnum):
    """The kinds of signed messages. The value is the wire tag."""

    DELEGATION = "delegation"
    REVOCATION = "revocation"
    COMMIT = "commit"
    REVEAL = "reveal"
    VOTE = "vote"
    REWARD = "reward"


class MessageTopic(msgspec.Struct, frozen=True, array_like=True, order=True):
    """What a message is about: messages of one kind, round and stage go into one transaction.

    `round` and `stage` are -1 for a kind that is bound to none.
    """

    kind: MessageKind
    round: int = -1
    stage: int = -1

    @property
    def has_round(self) -> bool:
        """Return True if the message is bound to a round; the owner's orders are not."""
        return self.round >= 0

    def __str__(self) -> str:
        return ":".join([self.kind, *(str(part) for part in (self.round, self.stage) if part >= 0)])


# --- what travels ---------------------------------------------------------------------------------------------------


class WireMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all kinds, for their encoding."""


class SignedDelegation(WireMessage, frozen=True, tag=MessageKind.DELEGATION.value):
    """An owner's delegation of `node`, new or renewed. A registration has the node's signature too, else it is empty.

    Where owner and node are one key, both signatures are the same.
    """

    owner: HexAddress
    node: HexAddress
    serial: Natural
    expiry: Natural
    owner_signature: OwnerSignature
    node_signature: Annotated[bytes, Meta(max_length=65)]

    @classmethod
    def of(cls, typed: Delegation, owner_signature: bytes, node_signature: bytes) -> SignedDelegation:
        """Return a delegation with the signatures under its digest."""
        return cls(typed.owner, typed.node, typed.serial, typed.expiry, owner_signature, node_signature)

    @property
    def delegation(self) -> Delegation:
        """What was signed."""
        return Delegation(self.owner, self.node, self.serial, self.expiry)


class SignedRevocation(WireMessage, frozen=True, tag=MessageKind.REVOCATION.value):
    """An owner's revocation of `node`."""

    owner: HexAddress
    node: HexAddress
    serial: Natural
    owner_signature: OwnerSignature

    @classmethod
    def of(cls, typed: Revocation, signature: bytes) -> SignedRevocation:
        """Return a revocation with the owner's signature under its digest."""
        return cls(typed.owner, typed.node, typed.serial, signature)

    @property
    def revocation(self) -> Revocation:
        """What was signed."""
        return Revocation(self.owner, self.node, self.serial)


class SignedCommitment(WireMessage, frozen=True, tag=MessageKind.COMMIT.value):
    """The announcer's commitment to its vote on a round."""

    round: Natural
    commitment: Word
    signature: Signature

    @classmethod
    def of(cls, typed: Commitment, signature: bytes) -> SignedCommitment:
        """Return a commitment with the signature under its digest."""
        return cls(typed.round, typed.commitment, signature)


class VoteReveal(WireMessage, frozen=True, tag=MessageKind.REVEAL.value):
    """What opens the announcer's commitment; winners ascending. The salt is proof enough: there is no signature."""

    round: Natural
    winners: Winners
    salt: Word


class SignedVote(WireMessage, frozen=True, tag=MessageKind.VOTE.value):
    """The announcer's open vote; winners ascending."""

    round: Natural
    winners: Winners
    signature: Signature

    @classmethod
    def of(cls, typed: Vote, signature: bytes) -> SignedVote:
        """Return a vote with the signature under its digest."""
        return cls(typed.round, typed.winners, signature)


class SignedReward(WireMessage, frozen=True, tag=MessageKind.REWARD.value):
    """The announcer's own reward of a stage, in millionths."""

    round: Natural
    stage: Stage
    reward: Annotated[int, Meta(ge=-(1 << 62), lt=1 << 62)]
    signature: Signature

    @classmethod
    def of(cls, typed: Reward, signature: bytes) -> SignedReward:
        """Return a reward with the signature under its digest."""
        return cls(typed.round, typed.stage, typed.reward, signature)


SignedMessage: TypeAlias = (
    SignedDelegation | SignedRevocation | SignedCommitment | VoteReveal | SignedVote | SignedReward
)
OwnerMessage: TypeAlias = SignedDelegation | SignedRevocation
"""What a node's owner signs."""
AttachedMessages = Annotated[tuple[SignedMessage, ...], Meta(max_length=MAX_ATTACHED)]
"""What one announcement has attached."""


class RelayedMessage(msgspec.Struct, frozen=True, array_like=True):
    """A signed message and the peer that announced it."""

    peer: Address
    message: SignedMessage


# --- the table ------------------------------------------------------------------------------------------------------


class StageView(msgspec.Struct, frozen=True):
    """The open stage, as far as the contract's windows depend on it. `rounds` are those whose seed is known."""

    round: int
    stage: int
    stages: int
    sealed: bool
    rounds: Collection[int]

    @property
    def step(self) -> int:
        """The number of the stage, counted from the first round on."""
        return step_number(self.round, self.stage, self.stages)


MessageT = TypeVar("MessageT", bound=WireMessage)


class MessageRules(msgspec.Struct, Generic[MessageT], frozen=True, kw_only=True):
    """What holds for every message of a kind.

    `place` is the round, or round and stage, that a message is bound to. `signed` is the EIP-712 message under its
    `signature`, for the seed of its round; None where nothing is signed. The signer is the `owner` that the message
    names; where that is None, the peer that announced it. `in_window` says whether the contract takes the message in
    the open stage.
    """

    message: type[MessageT]
    place: Callable[[MessageT], tuple[int, ...]]
    signed: Callable[[MessageT, Seed], TypedMessage] | None
    signature: Callable[[MessageT], bytes]
    owner: Callable[[MessageT], Address] | None = None
    in_window: Callable[[MessageT, StageView], bool]


MESSAGE_RULES: dict[MessageKind, MessageRules[Any]] = {
    MessageKind.DELEGATION: MessageRules(
        message=SignedDelegation,
        place=lambda message: (),
        signed=lambda message, seed: message.delegation,
        signature=lambda message: message.owner_signature,
        owner=lambda message: message.owner,
        in_window=lambda message, now: True,
    ),
    MessageKind.REVOCATION: MessageRules(
        message=SignedRevocation,
        place=lambda message: (),
        signed=lambda message, seed: message.revocation,
        signature=lambda message: message.owner_signature,
        owner=lambda message: message.owner,
        in_window=lambda message, now: True,
    ),
    MessageKind.COMMIT: MessageRules(
        message=SignedCommitment,
        place=lambda message: (message.round,),
        signed=lambda message, seed: Commitment(message.round, seed, message.commitment),
        signature=lambda message: message.signature,
        in_window=lambda message, now: now.sealed and _is_due(message.round, commit_step, now),
    ),
    MessageKind.REVEAL: MessageRules(
        message=VoteReveal,
        place=lambda message: (message.round,),
        signed=None,
        signature=lambda message: message.salt,
        in_window=lambda message, now: now.sealed and _is_due(message.round, reveal_step, now),
    ),
    MessageKind.VOTE: MessageRules(
        message=SignedVote,
        place=lambda message: (message.round,),
        signed=lambda message, seed: Vote(message.round, seed, message.winners),
        signature=lambda message: message.signature,
        in_window=lambda message, now: not now.sealed and _is_due(message.round, commit_step, now),
    ),
    MessageKind.REWARD: MessageRules(
        message=SignedReward,
        place=lambda message: (message.round, message.stage),
        signed=lambda message, seed: Reward(message.round, message.stage, seed, message.reward),
        signature=lambda message: message.signature,
        in_window=lambda message, now: (message.round, message.stage) == (now.round, now.stage),
    ),
}


def kind_of(message: SignedMessage) -> MessageKind:
    """Return a message's kind: its wire tag."""
    return MessageKind(str(message.__struct_config__.tag))


def topic_of(message: SignedMessage) -> MessageTopic:
    """Return what a message is about."""
    kind = kind_of(message)
    return MessageTopic(kind, *MESSAGE_RULES[kind].place(message))


def in_window(message: SignedMessage, now: StageView) -> bool:
    """Return True if the contract takes such a message in the open stage."""
    return MESSAGE_RULES[kind_of(message)].in_window(message, now)


def signer_named(relayed: RelayedMessage) -> Address:
    """Return whose signature a relayed message must have."""
    rules = MESSAGE_RULES[kind_of(relayed.message)]
    return relayed.peer if rules.owner is None else rules.owner(relayed.message)


def _is_due(round_number: int, window: Callable[[int, int], int], now: StageView) -> bool:
    """Return True if the window of a vote on a round is the open stage, and the round's seed is known."""
    return round_number in now.rounds and now.step == window(round_number, now.stages)
