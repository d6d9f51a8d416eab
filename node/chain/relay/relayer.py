"""This node as a relayer: which call a relay command becomes, and how much gas may still be spent on others today."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from node.chain.relay.batcher import Batcher
from node.chain.relay.signer import MessageSigner
from node.chain.transactions.tx_queue import QueuedTransaction, RelayGasKey, TransactionQueue
from node.machine.commands import RelayMessages
from node.machine.transaction_keys import MessageKey
from protocols.identifiers import Address
from protocols.signed_messages import RelayedMessage

DAY = 86_400


class Relayer:
    """Builds batches, with this node's own queued messages in them. What they cost is counted over restarts."""

    def __init__(
        self, address: Address, batcher: Batcher, signer: MessageSigner, queue: TransactionQueue, gas_per_day: int
    ) -> None:
        self._address, self._batcher, self._signer = address, batcher, signer
        self._queue, self._gas_per_day = queue, gas_per_day

    async def call(
        self,
        command: RelayMessages,
        queued: Sequence[QueuedTransaction],
        gas_of: Callable[[str], Awaitable[int]],
        now: float,
    ) -> tuple[str, int] | None:
        """Return the call for a command and its gas, None where nothing is left to submit.

        `queued` are this node's own commands, `gas_of` simulates a call. A batch that is dearer than the rest of
        today's budget is halved until it is not, or a single message is left.
        """
        batch = await self._batcher.batch(command, self._own(command, queued))
        count = batch.size
        while count:
            data = batch.call(count)
            gas = await gas_of(data)
            if count == 1 or self.is_within_budget(gas, now):
                return data, gas
            count //= 2
        return None

    def _own(self, command: RelayMessages, queued: Sequence[QueuedTransaction]) -> list[RelayedMessage]:
        """Return this node's own messages of the command's topic."""
        waiting = [
            each.command
            for each in queued
            if each.command is not None and isinstance(each.key, MessageKey) and each.key.topic == command.topic
        ]
        return [RelayedMessage(self._address, message) for message in self._signer.messages(waiting)]

    def is_within_budget(self, gas: int, now: float) -> bool:
        """Return True if so much gas is left of today's budget; `now` in Unix seconds."""
        return spent_on(self._queue, now) + gas <= self._gas_per_day

    def spent(self, gas: int, now: float) -> None:
        """Add what a batch has cost."""
        known = QueuedTransaction(
            key=RelayGasKey(), command=None, state="settled", nonce=int(now // DAY), gas=spent_on(self._queue, now)
        )
        self._queue.put(msgspec.structs.replace(known, gas=known.gas + gas))


def spent_on(queue: TransactionQueue, now: float) -> int:
    """Return the gas spent on others on the day of `now`."""
    known = queue.get(RelayGasKey())
    return known.gas if known is not None and known.nonce == int(now // DAY) else 0
