"""Signed messages for the coordinator that travel inside announcements, for anybody with funds to bring on chain.

Each is complete but for what the receiver knows: who announced it, the deployment's domain and the round's seed. What
is signed stands in `protocols.typed_data`; a reveal needs no signature, its salt is proof enough.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from protocols.delegation import SignedDelegation
from protocols.identifiers import Address
from protocols.voting import MAX_WINNERS

MAX_CARRIED = 8
"""Messages in one announcement."""
MAX_WALLET_SIGNATURE = 1024
"""Bytes of an owner's signature: 65 from a key, more from a contract wallet (ERC-1271)."""

Natural = Annotated[int, Meta(ge=0)]
"""MessagePack has no integer above 64 bits."""
Stage = Annotated[int, Meta(ge=0, lt=16)]

Signature = Annotated[bytes, Meta(min_length=65, max_length=65)]
OwnerSignature = Annotated[bytes, Meta(min_length=65, max_length=MAX_WALLET_SIGNATURE)]
Word = Annotated[bytes, Meta(min_length=32, max_length=32)]
Name = Annotated[str, Meta(pattern="^0x[0-9a-f]{40}$")]
Winners = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_WINNERS)]


class CarriedDelegation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="delegation"):
    """An owner's delegation of `node`, new or renewed; a registration has the node's signature too, else none."""

    owner: Name
    node: Name
    serial: Natural
    expiry: Natural
    owner_signature: OwnerSignature
    node_signature: Annotated[bytes, Meta(max_length=65)]


class CarriedRevocation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="revocation"):
    """An owner's revocation of `node`."""

    owner: Name
    node: Name
    serial: Natural
    owner_signature: OwnerSignature


class CarriedCommitment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="commit"):
    """The announcer's commitment to its vote on a round."""

    round: Natural
    commitment: Word
    signature: Signature


class CarriedReveal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="reveal"):
    """What opens the announcer's commitment; winners ascending."""

    round: Natural
    winners: Winners
    salt: Word


class CarriedVote(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="vote"):
    """The announcer's open vote; winners ascending."""

    round: Natural
    winners: Winners
    signature: Signature


class CarriedReward(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="reward"):
    """The announcer's own reward of a stage, in millionths."""

    round: Natural
    stage: Stage
    reward: Annotated[int, Meta(ge=-(1 << 62), lt=1 << 62)]
    signature: Signature


Carried: TypeAlias = (
    CarriedDelegation | CarriedRevocation | CarriedCommitment | CarriedReveal | CarriedVote | CarriedReward
)
Cargo = Annotated[tuple[Carried, ...], Meta(max_length=MAX_CARRIED)]
"""What one announcement carries."""


class Load(msgspec.Struct, frozen=True, array_like=True):
    """A carried message and who announced it."""

    peer: Address
    message: Carried


def carried_delegation(signed: SignedDelegation) -> CarriedDelegation:
    """Return a signed delegation as it travels."""
    said = signed.delegation
    return CarriedDelegation(
        said.owner, said.node, said.serial, said.expiry, signed.owner_signature, signed.node_signature
    )


def kind_of(message: Carried) -> str:
    """Return what a message is about: messages of one kind, round and stage go into one transaction."""
    match message:
        case CarriedDelegation():
            return "delegation"
        case CarriedRevocation():
            return "revocation"
        case CarriedReward():
            return f"reward:{message.round}:{message.stage}"
        case CarriedCommitment():
            return f"commit:{message.round}"
        case CarriedReveal():
            return f"reveal:{message.round}"
        case CarriedVote():
            return f"vote:{message.round}"
