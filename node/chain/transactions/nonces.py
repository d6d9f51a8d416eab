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
    """Assigns nonces in the order of signing. While `stale` is set they must be resynced before the next one."""

    def __init__(self, address: Address, queue: TransactionQueue) -> None:
        self.stale = True
        self._address, self._queue = address, queue
        self._next = 0

    def take(self) -> int:
        """Return the next nonce."""
        self._next += 1
        return self._next - 1

    def release(self, nonce: int) -> None:
        """Take back a nonce that no transaction was sent with. Later ones may have been, so all are stale."""
        self._next = min(self._next, nonce)
        self.stale = True

    async def resync(self, endpoint: RpcEndpoint) -> list[int]:
        """Compare with the chain after a gap, a reorg or a restart: it may have forgotten nonces that were settled.

        Those transactions are pending again. A nonce without a known transaction becomes the next one, or is returned,
        to be filled. Raises `RpcError`, `ConnectionLostError`.
        """
        self.stale = False
        mined, pending = [await self._count(endpoint, tag) for tag in ("latest", "pending")]
        sent = {record.nonce for record in self._queue.sent()}
        history = self._queue.settled(HISTORY)
        self._next = max([pending, *(nonce + 1 for nonce in (*sent, *history) if nonce >= mined)])
        unsent = [nonce for nonce in range(mined, self._next) if nonce not in sent]
        for nonce in unsent:
            if nonce in history:
                log.info("chain.sent_again", key=str(history[nonce].key), nonce=nonce)
                self._queue.put(msgspec.structs.replace(history[nonce], state="sent"))
        return [nonce for nonce in unsent if nonce not in history and nonce >= pending]

    async def _count(self, endpoint: RpcEndpoint, tag: str) -> int:
        return int(await endpoint.request("eth_getTransactionCount", self._address, tag), 16)
