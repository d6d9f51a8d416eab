"""The only owner of one key's nonces: signs, sends, raises fees, sends again, settles."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import structlog
import trio
from eth_account.signers.local import LocalAccount

from node.chain.contract.abi import Revert
from node.chain.contract.interface import CoordinatorBinding, CoordinatorReader
from node.chain.contract.swarm import Voter
from node.chain.relay.relayer import Relayer
from node.chain.rpc.blocks import BlockHead
from node.chain.rpc.client import RpcEndpoint, RpcError
from node.chain.transactions.fees import GWEI, Fees, offer, raised
from node.chain.transactions.nonces import Nonces
from node.chain.transactions.send_errors import KNOWN, NONCE_LOW, UNDERPRICED, UNFUNDED, says
from node.chain.transactions.tx_queue import FillerKey, QueuedTransaction, TransactionQueue, transaction_of
from node.machine.commands import CastVote, CommitVote, RelayMessages, RevealVote
from node.machine.inputs import TransactionSettled
from node.machine.transaction_keys import Key
from node.ports import VoteGuard
from protocols.identifiers import Address

log = structlog.get_logger()

STUCK_BLOCKS = 3
STUCK_SECONDS = 20.0

SOON, LATER = 0.5, 5.0
"""Seconds until what could not be sent is tried again: a clock's skew, and what only the operator or time mends."""

GAS_MARGIN = 1.3
TRANSFER_GAS = 21_000


class TransactionManager:
    """Carries the records of a shelf out, over one endpoint at a time; what it knows survives the connection.

    One task does all of it, one step after another: nonces are given in the order of signing and sending.
    """

    def __init__(
        self,
        account: LocalAccount,
        contract: Address,
        shelf: TransactionQueue,
        guard: VoteGuard,
        settled: Callable[[TransactionSettled], Awaitable[None]],
        *,
        confirmations: int,
        max_fee: int,
        stuck_seconds: float = STUCK_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.shelf = shelf
        self.voter: Voter
        self._account, self._contract, self._guard, self._settled = account, contract, guard, settled
        self._confirmations, self._cap, self._stuck_seconds = confirmations, max_fee, stuck_seconds
        self._clock = clock
        self._relayer: Relayer | None = None
        self._waiting: set[Key] = set()
        self._wake = trio.Event()
        self._head: BlockHead | None = None
        self._looked: BlockHead | None = None
        self._nonces = Nonces(account.address, shelf)
        self._due: dict[Key, float] = {}
        self._sent_at: dict[Key, tuple[int, float]] = {}
        self._endpoint: RpcEndpoint
        self._binding: CoordinatorBinding
        self._reader: CoordinatorReader
        self._chain_id = 0

    # --- from outside -------------------------------------------------------------------------------------------

    def wake(self, *, retry: bool = False) -> None:
        """Something was queued; or, to `retry`, the contract may take now what it has refused for a while."""
        if retry:
            self._due = {key: due for key, due in self._due.items() if key in self._waiting}
        self._wake.set()

    def saw(self, head: BlockHead) -> None:
        """Take a new head. One that does not follow the last means that nonces must be compared with the chain's."""
        if self._head is None or head.parent != self._head.hash:
            self._nonces.doubtful = True
        self._head = head
        self._wake.set()

    async def work(
        self,
        endpoint: RpcEndpoint,
        binding: CoordinatorBinding,
        voter: Voter,
        chain_id: int,
        relayer: Relayer | None = None,
    ) -> None:
        """Send and settle over this endpoint until cancelled. Raises `RpcError`, `ConnectionLostError`."""
        self._endpoint, self._binding, self._relayer = endpoint, binding, relayer
        self._reader = binding.reader(endpoint, self._contract)
        self.voter, self._chain_id = voter, chain_id
        self._nonces.doubtful, self._looked = True, None
        while True:
            self._wake = trio.Event()
            await self._turn()
            with trio.move_on_after(self._pause()):
                await self._wake.wait()

    # --- one turn -----------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        if self._nonces.doubtful:
            for nonce in await self._nonces.compare(self._endpoint):
                await self._fill(QueuedTransaction(key=FillerKey(nonce, 0), command=None, nonce=nonce), 0)
        if self._head is not self._looked:
            self._looked = self._head
            soon = trio.current_time() + SOON
            self._due = {key: due for key, due in self._due.items() if due > soon and key not in self._waiting}
            self._waiting.clear()
        for record in self.shelf.sent():
            await self._look(record)
        for record in self.shelf.queued():
            if self._due.get(record.key, 0.0) > trio.current_time():
                continue
            wait = record.after - self._clock()
            await (self._start(record) if wait <= 0 else self._watch(record, wait))

    def _pause(self) -> float:
        """Return the seconds after which something is due even if nothing wakes the loop."""
        waits = [self._stuck_seconds / 4] if self.shelf.sent() else []
        waits += [self._due.get(record.key, 0.0) - trio.current_time() for record in self.shelf.queued()]
        return max(0.0, min(waits)) if waits else math.inf

    def _later(self, record: QueuedTransaction, seconds: float) -> None:
        self._due[record.key] = trio.current_time() + seconds

    async def _watch(self, record: QueuedTransaction, wait: float) -> None:
        """Settle what a relayer has brought; look again at the next head, and after `wait` seconds send it."""
        command = record.command
        if command is not None and await self._reader.stands(command, self.voter):
            transaction, block = await self._reader.bringer(command, self.voter)
            await self._settle(record, ok=True, error="", transaction=transaction, block=block)
            return
        self._later(record, wait)
        self._waiting.add(record.key)

    # --- from queued to sent ------------------------------------------------------------------------------------

    async def _start(self, record: QueuedTransaction) -> None:
        """Check, simulate, sign, store, send."""
        try:
            reason = await self._outdated(record)
            call = await self._call(record) if reason is None else None
            history = await self._fee_history() if call else {}
        except RpcError as error:
            await self._refused(record, error)
            return
        if call is None:
            await self._settle(record, ok=not reason, error=reason or "")
            return
        data, gas = call
        reason = self._forbidden(record, gas)
        if reason:
            await self._settle(record, ok=False, error=reason)
            return
        base, fees = offer(history, self._cap)
        if fees.max_fee < base + fees.tip:
            log.warning("chain.fees_above_limit", base_gwei=base / GWEI, limit_gwei=self._cap / GWEI)
            self._later(record, LATER)
            return
        draft = msgspec.structs.replace(
            record, nonce=self._nonces.take(), data=data, gas=gas, tip=fees.tip, max_fee=fees.max_fee
        )
        await self._broadcast(self.shelf.put(self._signed(draft)), fresh=True)

    async def _outdated(self, record: QueuedTransaction) -> str | None:
        now = self._head.timestamp if self._head else 0
        return await self._reader.outdated(record.command, self.voter, now)

    async def _call(self, record: QueuedTransaction) -> tuple[str, int] | None:
        """Return the call that carries a record out and the gas to allow; None where there is nothing left of it.

        Raises `RpcError` with the revert where it would fail now.
        """
        command = record.command
        if isinstance(command, RelayMessages):
            relayer, queued = self._relayer, self.shelf.queued()
            return await relayer.call(command, queued, self._gas_of, self._clock()) if relayer else None
        data = self._binding.call_data(command, self.voter) if command else "0x"
        return data, await self._gas_of(data)

    async def _gas_of(self, data: str) -> int:
        call = {"from": self._account.address, "to": self._contract, "data": data}
        return math.ceil(int(await self._request("eth_estimateGas", call), 16) * GAS_MARGIN)

    async def _refused(self, record: QueuedTransaction, error: RpcError) -> None:
        """The chain would not, or did not, take a call: settle or wait, as the command's kind has it."""
        revert = self._binding.abi.revert(error.data)
        if revert is None:
            unfunded = says(error, UNFUNDED)
            log.warning("chain.unfunded" if unfunded else "chain.refused", key=str(record.key), error=error.message)
            self._later(record, LATER)
            return
        await self._judge(record, revert)

    async def _judge(self, record: QueuedTransaction, revert: Revert, transaction: str = "", block: int = 0) -> None:
        command = record.command
        said = self._binding.judge(command, revert) if command else "failed"
        if command and said == "ask":
            said = "done" if await self._reader.stands(command, self.voter) else "failed"
        if said in ("retry", "wait"):
            self._requeue(record)
            self._later(record, SOON if said == "retry" else LATER)
            return
        error = "" if said == "done" else revert.name
        await self._settle(record, ok=said == "done", error=error, transaction=transaction, block=block)

    def _forbidden(self, record: QueuedTransaction, gas: int) -> str:
        """Return why a call must not be sent, or an empty text.

        The vote protection is asked before a vote: it keeps the bytes before it says yes. Batches have a budget.
        """
        match record.command:
            case CommitVote() | RevealVote() | CastVote() as command:
                kind, payload = self._binding.guarded(command, self.voter)
                return "" if self._guard.admit(kind, command.round, command.seed, payload) else "VoteProtected"
            case RelayMessages() if self._relayer and not self._relayer.affords(gas, self._clock()):
                return "OverBudget"
            case _:
                return ""

    def _signed(self, record: QueuedTransaction) -> QueuedTransaction:
        """Return the record with its newest form: the caller stores it before it sends it."""
        filler = record.command is None
        to = self._account.address if filler else self._contract
        signed = self._account.sign_transaction(transaction_of(record, to, self._chain_id))
        name = "0x" + bytes(signed.hash).hex()
        hashes = record.hashes if name in record.hashes else (*record.hashes, name)
        raw = "0x" + bytes(signed.raw_transaction).hex()
        return msgspec.structs.replace(record, state="sent", raw=raw, hashes=hashes)

    async def _broadcast(self, record: QueuedTransaction, *, fresh: bool) -> None:
        """Send a stored record's newest form. `fresh`: never sent before, so its nonce can be given back."""
        self._sent_at[record.key] = (self._head.number if self._head else 0, trio.current_time())
        try:
            await self._request("eth_sendRawTransaction", record.raw)
        except RpcError as error:
            if says(error, KNOWN):
                return
            if says(error, NONCE_LOW):
                await self._nonce_is_taken(record)
            elif fresh:
                self._give_back(record, error)
            else:
                log.warning("chain.not_sent_again", key=str(record.key), error=error.message)
        else:
            log.info("chain.sent", key=str(record.key), transaction=record.hashes[-1], nonce=record.nonce)

    async def _nonce_is_taken(self, record: QueuedTransaction) -> None:
        """Ours, mined already (an answer got lost); or the key was used elsewhere, or receipts lag behind nonces."""
        if not await self._is_mined(record):
            self._requeue(record)
            self._later(record, SOON)
            self._nonces.doubtful = True

    def _give_back(self, record: QueuedTransaction, error: RpcError) -> None:
        self._nonces.give_back(record.nonce)
        self._requeue(record)
        self._later(record, SOON if says(error, UNDERPRICED) else LATER)
        event = "chain.unfunded" if says(error, UNFUNDED) else "chain.refused"
        log.warning(event, key=str(record.key), error=error.message, account=self._account.address)

    def _requeue(self, record: QueuedTransaction) -> None:
        """Forget a record's transaction; a filler has nothing left to do without its nonce."""
        state: Literal["queued", "settled"] = "settled" if record.command is None else "queued"
        self.shelf.put(msgspec.structs.replace(record, state=state, nonce=-1, raw="", hashes=()))

    # --- from sent to settled -----------------------------------------------------------------------------------

    async def _look(self, record: QueuedTransaction) -> None:
        """See what became of a transaction: settle it, send it again, or offer more."""
        if await self._is_mined(record):
            return
        known = await self._request("eth_getTransactionByHash", record.hashes[-1])
        base = self._head.base_fee if self._head else 0
        if known is None and await self._outdated(record) == "SeedChanged":
            await self._fill(record, base)
        elif known is None and record.max_fee >= base:
            await self._broadcast(record, fresh=False)
        elif known is None or self._is_late(record):
            await self._offer_more(record, base)

    async def _offer_more(self, record: QueuedTransaction, base: int) -> None:
        fees = raised(Fees(record.tip, record.max_fee), base, self._cap)
        if fees.max_fee <= record.max_fee:
            return  # the limit is reached: wait for cheaper blocks
        log.info("chain.fee_raised", key=str(record.key), nonce=record.nonce, max_fee_gwei=fees.max_fee / GWEI)
        better = msgspec.structs.replace(record, tip=fees.tip, max_fee=fees.max_fee)
        await self._broadcast(self.shelf.put(self._signed(better)), fresh=False)

    def _is_late(self, record: QueuedTransaction) -> bool:
        """Late by blocks and by the clock: blocks alone come too fast where each transaction makes one."""
        block, at = self._sent_at.setdefault(record.key, (self._head.number if self._head else 0, trio.current_time()))
        blocks = self._head.number - block if self._head else 0
        return blocks >= STUCK_BLOCKS and trio.current_time() - at >= self._stuck_seconds

    async def _is_mined(self, record: QueuedTransaction) -> bool:
        """Settle a mined transaction once it is deep enough; tell whether it is mined at all."""
        for name in reversed(record.hashes):
            receipt = await self._request("eth_getTransactionReceipt", name)
            if not receipt or not receipt["blockNumber"]:
                continue
            depth = (self._head.number if self._head else 0) - int(receipt["blockNumber"], 16)
            if depth >= self._confirmations or self._confirmations == 0:
                await self._mined(record, receipt)
            return True
        return False

    async def _mined(self, record: QueuedTransaction, receipt: dict[str, Any]) -> None:
        name, block = str(receipt["transactionHash"]), int(receipt["blockNumber"], 16)
        if isinstance(record.command, RelayMessages) and self._relayer:
            self._relayer.spent(int(receipt["gasUsed"], 16), self._clock())
        if int(receipt["status"], 16):
            await self._settle(record, ok=True, error="", transaction=name, block=block)
            return
        log.info("chain.reverted", key=str(record.key), transaction=name)
        reason = await self._outdated(record)
        if reason is not None:
            await self._settle(record, ok=not reason, error=reason, transaction=name, block=block)
        else:
            await self._judge(record, await self._why(record, receipt), name, block)

    async def _why(self, record: QueuedTransaction, receipt: dict[str, Any]) -> Revert:
        """Return the error of a mined, failed transaction, by calling it again on top of its block."""
        call = {"from": self._account.address, "to": self._contract, "data": record.data}
        try:
            await self._request("eth_call", call, receipt["blockNumber"])
        except RpcError as error:
            return self._binding.abi.revert(error.data) or Revert("UnknownError", {})
        return Revert("OutOfGas", {}) if int(receipt["gasUsed"], 16) >= record.gas else Revert("UnknownError", {})

    async def _settle(
        self, record: QueuedTransaction, *, ok: bool, error: str, transaction: str = "", block: int = 0
    ) -> None:
        done = msgspec.structs.replace(
            record, state="settled", ok=ok, error=error, transaction=transaction, block=block
        )
        self.shelf.put(done)
        self._due.pop(record.key, None)
        self._sent_at.pop(record.key, None)
        self._waiting.discard(record.key)
        if record.command is not None:
            log.info("chain.settled", key=str(record.key), ok=ok, error=error, transaction=transaction)
            await self._settled(done.outcome)

    async def _fill(self, record: QueuedTransaction, base: int) -> None:
        """Take a record's nonce with an empty transfer, dearer than the record's own: it must not be mined any more."""
        _, fees = offer(await self._fee_history(), self._cap)
        if record.raw:
            more = raised(Fees(record.tip, record.max_fee), base, self._cap)
            fees = Fees(max(fees.tip, more.tip), max(fees.max_fee, more.max_fee))
        filler = QueuedTransaction(
            key=FillerKey(record.nonce, time.time_ns()),
            command=None,
            nonce=record.nonce,
            gas=TRANSFER_GAS,
            tip=fees.tip,
            max_fee=fees.max_fee,
        )
        sent = self.shelf.put(self._signed(filler))
        if record.command is not None:
            dropped = msgspec.structs.replace(record, raw="", hashes=())
            await self._settle(dropped, ok=False, error="SeedChanged")
        await self._broadcast(sent, fresh=False)

    async def _fee_history(self) -> Any:
        return await self._request("eth_feeHistory", "0x5", "latest", [50])

    async def _request(self, method: str, *parameters: object) -> Any:
        return await self._endpoint.request(method, *parameters)
