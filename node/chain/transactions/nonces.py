"""Which nonce of a key comes next, and which ones the chain waits for."""

from __future__ import annotations

import msgspec
import structlog

from node.chain.rpc.client import RpcEndpoint
from node.chain.transactions.tx_queue import TransactionQueue
from protocols.identifiers import Address

log = structlog.get_logger()

HISTORY = 256
"""Settled transactions that are sent again after a deep reorg."""


class Nonces:
    """Gives nonces in the order of signing. `doubtful`: they must be compared with the chain's before the next one."""

    def __init__(self, address: Address, shelf: TransactionQueue) -> None:
        self.doubtful = True
        self._address, self._shelf = address, shelf
        self._next = 0

    def take(self) -> int:
        """Return the next nonce."""
        self._next += 1
        return self._next - 1

    def give_back(self, nonce: int) -> None:
        """Take back a nonce that no transaction was sent with; others may have been, so that is to be looked at."""
        self._next = min(self._next, nonce)
        self.doubtful = True

    async def compare(self, endpoint: RpcEndpoint) -> list[int]:
        """After a gap, a reorg or a restart: the chain may have forgotten nonces that were settled.

        Those transactions are under way again; a nonce that nothing is known of becomes the next one, or is returned,
        to be filled. Raises `RpcError`, `ConnectionLostError`.
        """
        self.doubtful = False
        mined, pending = [await self._count(endpoint, tag) for tag in ("latest", "pending")]
        sent = {record.nonce for record in self._shelf.sent()}
        history = self._shelf.done(HISTORY)
        self._next = max([pending, *(nonce + 1 for nonce in (*sent, *history) if nonce >= mined)])
        unsent = [nonce for nonce in range(mined, self._next) if nonce not in sent]
        for nonce in unsent:
            if nonce in history:
                log.info("chain.sent_again", key=str(history[nonce].key), nonce=nonce)
                self._shelf.put(msgspec.structs.replace(history[nonce], state="sent"))
        return [nonce for nonce in unsent if nonce not in history and nonce >= pending]

    async def _count(self, endpoint: RpcEndpoint, tag: str) -> int:
        return int(await endpoint.request("eth_getTransactionCount", self._address, tag), 16)
