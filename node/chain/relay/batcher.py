"""Batches of carried messages: checked against their signers and the chain, so that nothing is paid for in vain.

What stands on chain already, or would be skipped, is left out: a relayer never knowingly pays twice for one vote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

from node.chain.contract.swarm import COMMITTED, KEPT_BYTES
from node.chain.contract.swarm_reader import SwarmReader
from node.chain.relay import batch_calls as b
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

ORDER_GAS = 150_000
"""The most that an owner's order may cost: a registration costs 67,000, and a wallet may spend as much again."""

Order: TypeAlias = CarriedDelegation | CarriedRevocation
EntryT = TypeVar("EntryT")


@dataclass(frozen=True)
class Batch:
    """Entries that are good and missing: how many, and the call ("0x...") that brings the first so many of them."""

    size: int
    call: Callable[[int], str]


class Batcher:
    """Builds the calls of one relayer at one deployment. Every method may raise what the reader raises."""

    def __init__(self, reader: SwarmReader, domain: Domain) -> None:
        self._reader, self._domain = reader, domain

    async def batch(self, command: RelayMessages, own: Sequence[Load]) -> Batch:
        """Return what is good and missing of this node's own messages and of a command, in this order."""
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
                return await self._orders(loads, command.round + command.turn)
            case _:
                return Batch(0, str)

    async def _commitments(self, number: int, seed: Seed, loads: list[Load]) -> Batch:
        signed = {
            load.peer: b.SignedCommitment(Commitment(number, seed, load.message.commitment), load.message.signature)
            for load in loads
            if isinstance(load.message, CarriedCommitment)
        }
        missing = await self._unvoted(number, self._signed_by(signed))
        return _batch(list(missing.values()), partial(b.commitments_call, number))

    async def _votes(self, number: int, seed: Seed, loads: list[Load]) -> Batch:
        signed = {
            load.peer: b.SignedVote(Vote(number, seed, load.message.winners), load.message.signature)
            for load in loads
            if isinstance(load.message, CarriedVote)
        }
        missing = await self._unvoted(number, self._signed_by(signed))
        return _batch(list(missing.values()), partial(b.votes_call, number))

    async def _reveals(self, number: int, seed: Seed, loads: list[Load]) -> Batch:
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
        return _batch(good, partial(b.reveals_call, number))

    async def _rewards(self, number: int, stage: int, seed: Seed, loads: list[Load]) -> Batch:
        signed = {
            load.peer: b.SignedReward(Reward(number, stage, seed, load.message.reward), load.message.signature)
            for load in loads
            if isinstance(load.message, CarriedReward)
        }
        signed = self._signed_by(signed)
        marks = await self._reader.rewards(list(signed), number)
        missing = [one for one, mark in zip(signed.values(), marks, strict=True) if not mark >> stage & 1]
        return _batch(missing, partial(b.rewards_call, number, stage))

    async def _orders(self, loads: list[Load], turn: int) -> Batch:
        """Return owners' orders, one for each node, that the contract would take now.

        A contract wallet may say yes when it is asked and burn the gas of the transaction: what only a wallet can have
        signed travels alone, so that it sinks nobody, another one in each turn.
        """
        orders = [load.message for load in loads if isinstance(load.message, Order)]
        by_key = [order for order in orders if self._is_owners(order)]
        found = await self._taken(by_key, len(by_key))
        if not found:
            others = [order for order in orders if order not in by_key]
            first = turn % len(others) if others else 0
            found = await self._taken([*others[first:], *others[:first]], 1)
        return _batch(found, _orders_call)

    def _is_owners(self, order: Order) -> bool:
        """Tell whether the owner's key signed."""
        said = _delegation(order).delegation if isinstance(order, CarriedDelegation) else _revocation(order).said
        return b.signer_of(self._domain, said, order.owner_signature) == order.owner

    async def _taken(self, orders: Sequence[Order], most: int) -> list[Order]:
        """Return the first so many orders that the contract would take, each tried by itself; one for each node."""
        taken: dict[Address, Order] = {}
        for order in orders:
            if len(taken) < most and order.node not in taken:
                gas = await self._reader.gas_of(_orders_call([order]))
                if gas is not None and gas <= ORDER_GAS:
                    taken[order.node] = order
        return list(taken.values())

    def _signed_by(self, signed: dict[Address, b.SignedT]) -> dict[Address, b.SignedT]:
        """Return those that the peer that announced them has signed itself."""
        return {peer: one for peer, one in signed.items() if b.signer_of(self._domain, one.said, one.signature) == peer}

    async def _unvoted(self, number: int, signed: dict[Address, b.SignedT]) -> dict[Address, b.SignedT]:
        """Return those of nodes whose ballot of a round is empty."""
        standing = await self._reader.ballots(list(signed), number)
        empty = {peer for peer, (state, _) in zip(signed, standing, strict=True) if state == NONE}
        return {peer: one for peer, one in signed.items() if peer in empty}


def _batch(entries: Sequence[EntryT], build: Callable[[Sequence[EntryT]], str]) -> Batch:
    return Batch(len(entries), lambda count: build(entries[:count]))


def _orders_call(orders: Sequence[Order]) -> str:
    """Return the call that brings orders, all of them delegations or all revocations."""
    delegations = [_delegation(order) for order in orders if isinstance(order, CarriedDelegation)]
    revocations = [_revocation(order) for order in orders if isinstance(order, CarriedRevocation)]
    return b.registrations_call(delegations) if delegations else b.revocations_call(revocations)


def _opened(number: int, seed: Seed, reveal: b.Reveal) -> bytes:
    """Return what a ballot must hold of the commitment that a reveal opens."""
    return vote_commitment(number, seed, reveal.node, reveal.winners, reveal.salt)[:KEPT_BYTES]


def _delegation(said: CarriedDelegation) -> SignedDelegation:
    delegation = Delegation(said.owner, said.node, said.serial, said.expiry)
    return SignedDelegation(delegation, said.owner_signature, said.node_signature)


def _revocation(said: CarriedRevocation) -> b.SignedRevocation:
    return b.SignedRevocation(Revocation(said.owner, said.node, said.serial), said.owner_signature)
