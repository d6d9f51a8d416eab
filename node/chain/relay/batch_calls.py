"""The contract's batch calls: each takes many nodes' messages of one kind in one transaction. Pure.

A batch never fails for one bad entry: the contract emits `Skipped` with the entry's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import astuple

from node.chain.contract.abi import DecodedEvent
from node.chain.contract.swarm import ABI, signed_words
from node.chain.relay.signatures import compact
from protocols.identifiers import Address
from protocols.signed_messages import (
    SignedCommitment,
    SignedDelegation,
    SignedRevocation,
    SignedReward,
    SignedVote,
    VoteReveal,
)


def votes_call(round_number: int, votes: Sequence[SignedVote]) -> str:
    """Return the call ("0x...") that submits open votes on one round."""
    names = _places(vote.winners for vote in votes)
    packed = b"".join(compact(vote.signature) + _encoded(names, vote.winners) for vote in votes)
    return ABI.call("submitVotes", round_number, list(names), packed)


def commitments_call(round_number: int, commitments: Sequence[SignedCommitment]) -> str:
    """Return the call that submits commitments to one round's votes."""
    packed = b"".join(compact(one.signature) + one.commitment for one in commitments)
    return ABI.call("commitVotes", round_number, packed)


def reveals_call(round_number: int, reveals: Sequence[tuple[Address, VoteReveal]]) -> str:
    """Return the call that reveals nodes' votes on one round."""
    names = _places(reveal.winners for _, reveal in reveals)
    packed = b"".join(bytes.fromhex(node[2:]) + one.salt + _encoded(names, one.winners) for node, one in reveals)
    return ABI.call("revealVotes", round_number, list(names), packed)


def rewards_call(round_number: int, stage: int, rewards: Sequence[SignedReward]) -> str:
    """Return the call that submits rewards of one stage."""
    packed = b"".join(compact(one.signature) + one.reward.to_bytes(32, "big", signed=True) for one in rewards)
    return ABI.call("submitRewards", round_number, stage, packed)


def registrations_call(delegations: Sequence[SignedDelegation]) -> str:
    """Return the call that submits registrations and renewals."""
    return ABI.call("registerMany", [signed_words(one) for one in delegations])


def revocations_call(revocations: Sequence[SignedRevocation]) -> str:
    """Return the call that submits revocations."""
    return ABI.call("revokeMany", [(astuple(one.revocation), one.owner_signature) for one in revocations])


def skipped(events: Iterable[DecodedEvent]) -> dict[int, str]:
    """Return what a batch did not count: the error's name by the entry's place."""
    return {event.fields["place"]: ABI.error(event.fields["reason"]) for event in events if event.name == "Skipped"}


def _places(winners: Iterable[Sequence[Address]]) -> dict[Address, int]:
    """Return every winner's place in the list of names that goes with a batch: votes refer to it."""
    return {name: place for place, name in enumerate(sorted({name for few in winners for name in few}))}


def _encoded(places: dict[Address, int], winners: Sequence[Address]) -> bytes:
    return bytes([len(winners)]) + b"".join(places[winner].to_bytes(2, "big") for winner in winners)
