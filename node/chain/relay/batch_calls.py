"""Messages that a node signs and anybody brings on chain: signing them, and the calls that bring many at once. Pure.

A batch never fails for one bad entry: the contract says `Skipped` with its place. What would be skipped can be told
before: `Reader.ballots` and `Reader.rewards` say what stands already, `signer_of` who signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_keys.exceptions import BadSignature
from eth_typing import Hash32
from eth_utils.exceptions import ValidationError
from msgspec.structs import astuple

from node.chain.contract.abi import DecodedEvent
from node.chain.contract.swarm import ABI, signed_words
from protocols.delegation import SignedDelegation
from protocols.identifiers import Address
from protocols.typed_data import Commitment, Delegation, Domain, Message, Revocation, Reward, Vote, digest

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half the order of secp256k1: a signature with an s above it has a twin below (EIP-2)."""


class SignedCommitment(msgspec.Struct, frozen=True):
    """A node's commitment to a sealed vote; `signature` is 65 bytes, as everywhere here."""

    said: Commitment
    signature: bytes


class SignedVote(msgspec.Struct, frozen=True):
    """A node's open vote."""

    said: Vote
    signature: bytes


class SignedReward(msgspec.Struct, frozen=True):
    """A node's own reward."""

    said: Reward
    signature: bytes


class SignedRevocation(msgspec.Struct, frozen=True):
    """An owner's revocation."""

    said: Revocation
    signature: bytes


class Reveal(msgspec.Struct, frozen=True):
    """What opens a commitment: winners ascending, and the salt (32 bytes), which is proof enough."""

    node: Address
    winners: tuple[Address, ...]
    salt: bytes


SignedT = TypeVar("SignedT", SignedCommitment, SignedVote, SignedReward)


def sign(domain: Domain, message: Message, account: LocalAccount) -> bytes:
    """Return the 65-byte signature of a message."""
    return bytes(account.unsafe_sign_hash(Hash32(digest(domain, message))).signature)


def signer_of(domain: Domain, message: Message, signature: bytes) -> Address | None:
    """Return who signed a message, None where the contract would take it for nobody's."""
    if len(signature) != 65 or signature[64] not in (27, 28) or int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        return None
    try:
        return str(Account._recover_hash(digest(domain, message), signature=signature)).lower()
    except (ValueError, ValidationError, BadSignature):
        return None


def own_delegation(domain: Domain, account: LocalAccount, serial: int) -> SignedDelegation:
    """Return the delegation of a node that is its own owner, for ever; `serial` in milliseconds."""
    address = str(account.address).lower()
    said = Delegation(address, address, serial, 2**64 - 1)
    signature = sign(domain, said, account)
    return SignedDelegation(said, signature, signature)


def votes_call(round_number: int, votes: Sequence[SignedVote]) -> str:
    """Return the call ("0x...") that brings open votes on one round."""
    names = _names(vote.said.winners for vote in votes)
    packed = b"".join(compact(vote.signature) + _places(names, vote.said.winners) for vote in votes)
    return ABI.call("submitVotes", round_number, list(names), packed)


def commitments_call(round_number: int, commitments: Sequence[SignedCommitment]) -> str:
    """Return the call that brings commitments to one round's votes."""
    packed = b"".join(compact(one.signature) + one.said.commitment for one in commitments)
    return ABI.call("commitVotes", round_number, packed)


def reveals_call(round_number: int, reveals: Sequence[Reveal]) -> str:
    """Return the call that reveals votes on one round."""
    names = _names(reveal.winners for reveal in reveals)
    packed = b"".join(bytes.fromhex(one.node[2:]) + one.salt + _places(names, one.winners) for one in reveals)
    return ABI.call("revealVotes", round_number, list(names), packed)


def rewards_call(round_number: int, stage: int, rewards: Sequence[SignedReward]) -> str:
    """Return the call that brings rewards of one stage."""
    packed = b"".join(compact(one.signature) + one.said.reward.to_bytes(32, "big", signed=True) for one in rewards)
    return ABI.call("submitRewards", round_number, stage, packed)


def registrations_call(delegations: Sequence[SignedDelegation]) -> str:
    """Return the call that brings registrations and renewals."""
    return ABI.call("registerMany", [signed_words(one) for one in delegations])


def revocations_call(revocations: Sequence[SignedRevocation]) -> str:
    """Return the call that brings revocations."""
    return ABI.call("revokeMany", [(astuple(one.said), one.signature) for one in revocations])


def skipped(events: Iterable[DecodedEvent]) -> dict[int, str]:
    """Return what a batch did not count: the error's name by the entry's place."""
    return {event.fields["place"]: ABI.error(event.fields["reason"]) for event in events if event.name == "Skipped"}


def compact(signature: bytes) -> bytes:
    """Return a 65-byte signature in the 64 bytes of EIP-2098: the parity stands in the top bit of s."""
    return signature[:32] + bytes([signature[32] | (signature[64] - 27) << 7]) + signature[33:64]


def _names(winners: Iterable[Sequence[Address]]) -> dict[Address, int]:
    """Return every winner's place in the list that goes with a batch."""
    return {name: place for place, name in enumerate(sorted({name for few in winners for name in few}))}


def _places(names: dict[Address, int], winners: Sequence[Address]) -> bytes:
    return bytes([len(winners)]) + b"".join(names[winner].to_bytes(2, "big") for winner in winners)
