"""Batches of carried messages: checked against their signers and the chain, so that nothing is paid for in vain.

What stands on chain already, or would be skipped, is left out: a relayer never knowingly pays twice for one vote.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.chain import batches as b
from node.chain.binding import COMMITTED, KEPT_BYTES
from node.chain.reading import Reader
from node.machine.commands import RelayMessages
from protocols.carried import (
    CarriedCommitment,
    CarriedDelegation,
    CarriedReveal,
    CarriedRevocation,
    CarriedReward,
    CarriedVote,
    Load,
    kind_of,
)
from protocols.delegation import SignedDelegation
from protocols.identifiers import Address, Seed
from protocols.typed_data import Commitment, Delegation, Domain, Revocation, Reward, Vote
from protocols.voting import vote_commitment

NONE = 0
"""State of a ballot that nothing stands in."""


class Batcher:
    """Builds the calls of one relayer at one deployment. Every method may raise what the reader raises."""

    def __init__(self, reader: Reader, domain: Domain) -> None:
        self._reader, self._domain = reader, domain

    async def call(self, command: RelayMessages, own: Sequence[Load]) -> str | None:
        """Return the call that brings what is good and missing of a command and of this node's own messages.

        None where nothing is left to bring.
        """
        loads = [load for load in (*own, *command.loads) if kind_of(load.message) == command.kind]
        first = loads[0].message if loads else None
        match first:
            case CarriedCommitment():
                return await self._commitments(first.round, command.seed, loads)
            case CarriedReveal():
                return await self._reveals(first.round, command.seed, loads)
            case CarriedVote():
                return await self._votes(first.round, command.seed, loads)
            case CarriedReward():
                return await self._rewards(first.round, first.stage, command.seed, loads)
            case CarriedDelegation() | CarriedRevocation():
                return await self._orders(loads)
            case _:
                return None

    async def _commitments(self, number: int, seed: Seed, loads: list[Load]) -> str | None:
        signed = {
            load.peer: b.SignedCommitment(Commitment(number, seed, load.message.commitment), load.message.signature)
            for load in loads
            if isinstance(load.message, CarriedCommitment)
        }
        missing = await self._unvoted(number, self._signed_by(signed))
        return b.commitments_call(number, list(missing.values())) if missing else None

    async def _votes(self, number: int, seed: Seed, loads: list[Load]) -> str | None:
        signed = {
            load.peer: b.SignedVote(Vote(number, seed, load.message.winners), load.message.signature)
            for load in loads
            if isinstance(load.message, CarriedVote)
        }
        missing = await self._unvoted(number, self._signed_by(signed))
        return b.votes_call(number, list(missing.values())) if missing else None

    async def _reveals(self, number: int, seed: Seed, loads: list[Load]) -> str | None:
        found = {
            load.peer: b.Reveal(load.peer, load.message.winners, load.message.salt)
            for load in loads
            if isinstance(load.message, CarriedReveal)
        }
        standing = await self._reader.ballots(list(found), number)
        good = [
            reveal
            for reveal, (state, kept) in zip(found.values(), standing, strict=True)
            if state == COMMITTED and kept == _opened(number, seed, reveal)
        ]
        return b.reveals_call(number, good) if good else None

    async def _rewards(self, number: int, stage: int, seed: Seed, loads: list[Load]) -> str | None:
        signed = {
            load.peer: b.SignedReward(Reward(number, stage, seed, load.message.reward), load.message.signature)
            for load in loads
            if isinstance(load.message, CarriedReward)
        }
        signed = self._signed_by(signed)
        marks = await self._reader.rewards(list(signed), number)
        missing = [one for one, mark in zip(signed.values(), marks, strict=True) if not mark >> stage & 1]
        return b.rewards_call(number, stage, missing) if missing else None

    async def _orders(self, loads: list[Load]) -> str | None:
        """Return the call for owners' orders that are news. An owner may be a contract: it is asked by simulation."""
        messages = [load.message for load in loads]
        delegations = [_delegation(one) for one in messages if isinstance(one, CarriedDelegation)]
        revocations = [_revocation(one) for one in messages if isinstance(one, CarriedRevocation)]
        fresh = [one for one in delegations if await self._is_news(one.delegation) and self._has_consent(one)]
        ended = [one for one in revocations if await self._is_news(one.said)]
        if fresh:
            return b.registrations_call(fresh)
        return b.revocations_call(ended) if ended else None

    async def _is_news(self, said: Delegation | Revocation) -> bool:
        """Tell whether the contract would take an order of this owner and serial for this node."""
        entry = await self._reader.node(said.node)
        if not entry.since:
            return isinstance(said, Delegation)
        return entry.owner.lower() == said.owner and said.serial > entry.serial

    def _has_consent(self, signed: SignedDelegation) -> bool:
        """Tell whether the node itself signed, where its signature is given: a renewal needs none."""
        if not signed.node_signature:
            return True
        return b.signer_of(self._domain, signed.delegation, signed.node_signature) == signed.delegation.node

    def _signed_by(self, signed: dict[Address, b.SignedT]) -> dict[Address, b.SignedT]:
        """Return those that the peer that announced them has signed itself."""
        return {peer: one for peer, one in signed.items() if b.signer_of(self._domain, one.said, one.signature) == peer}

    async def _unvoted(self, number: int, signed: dict[Address, b.SignedT]) -> dict[Address, b.SignedT]:
        """Return those of nodes whose ballot of a round is empty."""
        standing = await self._reader.ballots(list(signed), number)
        empty = {peer for peer, (state, _) in zip(signed, standing, strict=True) if state == NONE}
        return {peer: one for peer, one in signed.items() if peer in empty}


def _opened(number: int, seed: Seed, reveal: b.Reveal) -> bytes:
    """Return what a ballot must hold of the commitment that a reveal opens."""
    return vote_commitment(number, seed, reveal.node, reveal.winners, reveal.salt)[:KEPT_BYTES]


def _delegation(said: CarriedDelegation) -> SignedDelegation:
    delegation = Delegation(said.owner, said.node, said.serial, said.expiry)
    return SignedDelegation(delegation, said.owner_signature, said.node_signature)


def _revocation(said: CarriedRevocation) -> b.SignedRevocation:
    return b.SignedRevocation(Revocation(said.owner, said.node, said.serial), said.owner_signature)
