"""Batches of other nodes' messages, checked against their signers and the chain before anything is paid for.

What is on chain already, or would be skipped, is left out: a relayer never knowingly pays twice for one message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from node.chain.contract.reader import RelayReader
from node.chain.relay.batch_rules import BATCH_RULES, BatchRules
from node.chain.relay.signatures import is_signed
from node.machine.commands import RelayMessages
from protocols.identifiers import Address
from protocols.signed_messages import MessageTopic, RelayedMessage, topic_of
from protocols.typed_data import Domain

ORDER_GAS = 150_000
"""The most that an owner's order may cost: a registration costs 67,000, and a wallet may spend as much again."""


@dataclass(frozen=True)
class Batch:
    """Messages that are good and missing: how many, and the call ("0x...") that submits the first so many of them."""

    size: int
    call: Callable[[int], str]


class Batcher:
    """Builds the calls of one relayer at one deployment. Every method may raise what the reader raises."""

    def __init__(self, reader: RelayReader, domain: Domain) -> None:
        self._reader, self._domain = reader, domain

    async def batch(self, command: RelayMessages, own: Sequence[RelayedMessage]) -> Batch:
        """Return what is good and missing of this node's own messages and of a command's, in this order."""
        topic, rules = command.topic, BATCH_RULES[command.topic.kind]
        relayed = [one for one in (*own, *command.messages) if topic_of(one.message) == topic]
        if relayed and rules.read:
            by_peer = {one.peer: one for one in relayed}
            signed = [one for one in by_peer.values() if is_signed(self._domain, one, command.seed)]
            found = await rules.read(self._reader, [one.peer for one in signed], topic.round)
            pairs = zip(signed, found, strict=True)
            relayed = [one for one, on_chain in pairs if rules.is_missing(one, command.seed, on_chain)]
        elif relayed:
            relayed = await self._jobs(command, rules, relayed)
        return Batch(len(relayed), lambda count: rules.call(topic, relayed[:count]))

    async def _jobs(
        self, command: RelayMessages, rules: BatchRules, relayed: Sequence[RelayedMessage]
    ) -> list[RelayedMessage]:
        """Return owners' orders, one for each node, that the contract would take now.

        A contract wallet may accept in the simulation and burn the gas of the transaction. What only a wallet can have
        signed is therefore sent alone, so that it sinks no other order, and each turn tries another one.
        """
        by_key = [one for one in relayed if is_signed(self._domain, one, command.seed)]
        found = await self._simulated(command.topic, rules, by_key, len(by_key))
        if found:
            return found
        others = [one for one in relayed if one not in by_key]
        first = (command.round + command.turn) % len(others) if others else 0
        return await self._simulated(command.topic, rules, [*others[first:], *others[:first]], 1)

    async def _simulated(
        self, topic: MessageTopic, rules: BatchRules, orders: Sequence[RelayedMessage], most: int
    ) -> list[RelayedMessage]:
        """Return the first so many orders that the contract would take, each simulated alone; one for each node."""
        taken: dict[Address, RelayedMessage] = {}
        for one in orders:
            order: Any = one.message
            if len(taken) < most and order.node not in taken:
                gas = await self._reader.gas_of(rules.call(topic, [one]))
                if gas is not None and gas <= ORDER_GAS:
                    taken[order.node] = one
        return list(taken.values())
