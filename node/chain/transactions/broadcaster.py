"""Signing transactions and handing them to an endpoint: what is sent is on disk before."""

from __future__ import annotations

import time
from typing import Literal

import msgspec
import structlog
from eth_account.signers.local import LocalAccount

from node.chain.rpc.client import RpcError
from node.chain.transactions.chain_session import ChainSession
from node.chain.transactions.fees import GWEI, Fees, bumped, suggested_fees
from node.chain.transactions.send_errors import SendError, classify_send_error
from node.chain.transactions.tx_queue import FillerKey, QueuedTransaction, TransactionQueue, transaction_of

log = structlog.get_logger()

TRANSFER_GAS = 21_000

SendResult = Literal["sent"] | SendError


class Broadcaster:
    """Signs with one key, and pays at most `max_fee` (wei per gas). Methods raise `RpcError`, `ConnectionLostError`."""

    def __init__(self, account: LocalAccount, queue: TransactionQueue, max_fee: int) -> None:
        self._account, self._queue, self._max_fee = account, queue, max_fee

    async def fees(self, session: ChainSession) -> Fees | None:
        """Return what to offer now; None where the limit does not pay for the next block."""
        base, fees = suggested_fees(await _fee_history(session), self._max_fee)
        if fees.max_fee >= base + fees.tip:
            return fees
        log.warning("chain.fees_above_limit", base_gwei=base / GWEI, limit_gwei=self._max_fee / GWEI)
        return None

    def signed(self, session: ChainSession, record: QueuedTransaction) -> QueuedTransaction:
        """Return the record with its newest signed form, which is stored."""
        to = self._account.address if record.command is None else session.contract
        signed = self._account.sign_transaction(transaction_of(record, to, session.chain_id))
        name = "0x" + bytes(signed.hash).hex()
        hashes = record.hashes if name in record.hashes else (*record.hashes, name)
        raw = "0x" + bytes(signed.raw_transaction).hex()
        return self._queue.put(msgspec.structs.replace(record, state="sent", raw=raw, hashes=hashes))

    def with_bumped_fees(self, session: ChainSession, record: QueuedTransaction, base: int) -> QueuedTransaction | None:
        """Return a stuck transaction signed with higher fees; None where the limit is reached."""
        fees = bumped(Fees(record.tip, record.max_fee), base, self._max_fee)
        if fees.max_fee <= record.max_fee:
            return None
        log.info("chain.fee_bumped", key=str(record.key), nonce=record.nonce, max_fee_gwei=fees.max_fee / GWEI)
        return self.signed(session, msgspec.structs.replace(record, tip=fees.tip, max_fee=fees.max_fee))

    async def filler(
        self, session: ChainSession, nonce: int, replaced: QueuedTransaction | None, base: int
    ) -> QueuedTransaction:
        """Return an empty transfer that takes a nonce, dearer than the transaction that it replaces."""
        _, fees = suggested_fees(await _fee_history(session), self._max_fee)
        if replaced and replaced.raw:
            more = bumped(Fees(replaced.tip, replaced.max_fee), base, self._max_fee)
            fees = Fees(max(fees.tip, more.tip), max(fees.max_fee, more.max_fee))
        return self.signed(
            session,
            QueuedTransaction(
                key=FillerKey(nonce, time.time_ns()),
                command=None,
                nonce=nonce,
                gas=TRANSFER_GAS,
                tip=fees.tip,
                max_fee=fees.max_fee,
            ),
        )

    async def send(self, session: ChainSession, record: QueuedTransaction) -> tuple[SendResult, str]:
        """Send a stored transaction's newest form; return what became of it and the endpoint's message."""
        try:
            await session.request("eth_sendRawTransaction", record.raw)
        except RpcError as error:
            return classify_send_error(error.message), error.message
        log.info("chain.sent", key=str(record.key), transaction=record.hashes[-1], nonce=record.nonce)
        return "sent", ""


async def _fee_history(session: ChainSession) -> dict[str, object]:
    history: dict[str, object] = await session.request("eth_feeHistory", "0x5", "latest", [50])
    return history
