"""The transaction manager: the only owner of one key's nonces. Signs, sends, bumps fees, sends again, settles."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import structlog
import trio
from eth_account.signers.local import LocalAccount

from node.chain.contract.reader import DONE, Inclusion, Outcome
from node.chain.rpc.blocks import BlockHead
from node.chain.rpc.client import RpcError
from node.chain.transactions import outcomes
from node.chain.transactions.broadcaster import Broadcaster, SendResult
from node.chain.transactions.chain_session import ChainSession
from node.chain.transactions.nonces import Nonces
from node.chain.transactions.retry_schedule import LATER, SOON, RetrySchedule
from node.chain.transactions.send_errors import classify_send_error
from node.chain.transactions.tx_queue import QueuedTransaction, TransactionQueue
from node.machine.commands import RelayMessages, VoteCommand
from node.machine.inputs import TransactionSettled
from node.machine.transaction_keys import BaseKey
from node.ports.votes import VoteGuard

log = structlog.get_logger()

STUCK_BLOCKS = 3
STUCK_SECONDS = 20.0
NOWHERE = Inclusion()


@dataclass(frozen=True)
class SendingRules:
    """When a mined transaction counts, what is paid at most (wei per gas), and when one counts as stuck."""

    confirmations: int
    max_fee: int
    stuck_seconds: float = STUCK_SECONDS


class TransactionManager:
    """Works off a queue, over one session at a time; what it knows survives the session.

    One task does all of it, one step after another: nonces are assigned in the order of signing and sending. `settled`
    gets how each command ended. `clock` gives Unix seconds.
    """

    def __init__(
        self,
        account: LocalAccount,
        queue: TransactionQueue,
        guard: VoteGuard,
        settled: Callable[[TransactionSettled], Awaitable[None]],
        rules: SendingRules,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue, self._guard, self._settled, self._rules, self._clock = queue, guard, settled, rules, clock
        self._address = account.address
        self._broadcaster = Broadcaster(account, queue, rules.max_fee)
        self._nonces = Nonces(account.address, queue)
        self._schedule = RetrySchedule()
        self._wake = trio.Event()
        self._head: BlockHead | None = None
        self._head_seen: BlockHead | None = None
        self._sent_at: dict[BaseKey, tuple[int, float]] = {}
        self._session: ChainSession

    # --- from outside -------------------------------------------------------------------------------------------

    def wake(self, *, retry: bool = False) -> None:
        """Something was queued; or, with `retry`, the contract may take now what it has refused for a while."""
        if retry:
            self._schedule.retry_refused()
        self._wake.set()

    def new_head(self, head: BlockHead) -> None:
        """Take a new head. One that does not follow the last makes the nonces stale."""
        if self._head is None or head.parent != self._head.hash:
            self._nonces.stale = True
        self._head = head
        self._wake.set()

    async def work(self, session: ChainSession) -> None:
        """Send and settle over this session until cancelled. Raises `RpcError`, `ConnectionLostError`."""
        self._session = session
        self._nonces.stale, self._head_seen = True, None
        while True:
            self._wake = trio.Event()
            await self._turn()
            with trio.move_on_after(self._pause()):
                await self._wake.wait()

    # --- one turn -----------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        if self._nonces.stale:
            for nonce in await self._nonces.resync(self._session.endpoint):
                await self._fill(nonce)
        if self._head is not self._head_seen:
            self._head_seen = self._head
            self._schedule.new_head(trio.current_time())
        for record in self._queue.sent():
            await self._check_sent(record)
        for record in self._queue.queued():
            if not self._schedule.is_due(record.key, trio.current_time()):
                continue
            wait = record.send_after - self._clock()
            await (self._send_new(record) if wait <= 0 else self._wait_for_relayer(record, wait))

    def _pause(self) -> float:
        """Return the seconds after which something is due even if nothing wakes the loop."""
        queued = self._schedule.seconds_left((record.key for record in self._queue.queued()), trio.current_time())
        return min(queued, self._rules.stuck_seconds / 4) if self._queue.sent() else queued

    def _defer(self, record: QueuedTransaction, seconds: float) -> None:
        self._schedule.defer(record.key, trio.current_time() + seconds)

    async def _wait_for_relayer(self, record: QueuedTransaction, seconds: float) -> None:
        """Settle what a relayer has submitted; look again with the next head, and after `seconds` send it."""
        command, session = record.command, self._session
        if command is not None and await session.reader.is_on_chain(command, session.voter):
            await self._settle(record, DONE, await session.reader.inclusion(command, session.voter))
            return
        self._schedule.leave_to_relayers(record.key, trio.current_time() + seconds)

    # --- from queued to sent ------------------------------------------------------------------------------------

    async def _send_new(self, record: QueuedTransaction) -> None:
        """Check, simulate, sign, store, send."""
        try:
            decided = await self._precheck(record)
            call = await self._call(record) if decided is None else None
            fees = await self._broadcaster.fees(self._session) if call else None
        except RpcError as error:
            await self._simulation_failed(record, error)
            return
        if call is None:
            await self._settle(record, decided or DONE)
            return
        data, gas = call
        if reason := self._forbidden(record, gas):
            await self._settle(record, Outcome(ok=False, error=reason))
            return
        if fees is None:
            self._defer(record, LATER)
            return
        draft = msgspec.structs.replace(
            record, nonce=self._nonces.take(), data=data, gas=gas, tip=fees.tip, max_fee=fees.max_fee
        )
        await self._broadcast(self._broadcaster.signed(self._session, draft), is_new=True)

    async def _precheck(self, record: QueuedTransaction) -> Outcome | None:
        return await outcomes.precheck(self._session, record, self._head.timestamp if self._head else 0)

    async def _call(self, record: QueuedTransaction) -> tuple[str, int] | None:
        """Return a record's call and the gas to allow; None where nothing of it is left to send.

        Raises `RpcError` with the revert where it would fail now.
        """
        command, session = record.command, self._session
        if isinstance(command, RelayMessages):
            relayer, queued = session.relayer, self._queue.queued()
            return await relayer.call(command, queued, session.gas_of, self._clock()) if relayer else None
        data = session.binding.call_data(command, session.voter) if command else "0x"
        return data, await session.gas_of(data)

    async def _simulation_failed(self, record: QueuedTransaction, error: RpcError) -> None:
        """Settle or defer a call that would revert, or that the endpoint refused to simulate."""
        revert = self._session.binding.abi.revert(error.data)
        if revert is None:
            unfunded = classify_send_error(error.message) == "unfunded"
            log.warning("chain.unfunded" if unfunded else "chain.refused", key=str(record.key), error=error.message)
            self._defer(record, LATER)
            return
        await self._conclude(record, await outcomes.of_revert(self._session, record, revert))

    async def _conclude(
        self, record: QueuedTransaction, verdict: outcomes.Verdict, inclusion: Inclusion = NOWHERE
    ) -> None:
        if isinstance(verdict, Outcome):
            await self._settle(record, verdict, inclusion)
            return
        self._requeue(record)
        self._defer(record, SOON if verdict == "retry" else LATER)

    def _forbidden(self, record: QueuedTransaction, gas: int) -> str:
        """Return why a call must not be sent, or an empty text.

        The vote protection is asked before a vote: it keeps the bytes before it says yes. Batches have a budget.
        """
        session = self._session
        match record.command:
            case VoteCommand() as command:
                kind, payload = session.binding.protection_record(command, session.voter)
                return "" if self._guard.admit(kind, command.round, command.seed, payload) else "VoteProtected"
            case RelayMessages() if session.relayer and not session.relayer.is_within_budget(gas, self._clock()):
                return "OverBudget"
            case _:
                return ""

    async def _broadcast(self, record: QueuedTransaction, *, is_new: bool) -> None:
        """Send a stored transaction. The nonce of a new one, which was never sent before, can be released."""
        self._sent_at[record.key] = (self._head.number if self._head else 0, trio.current_time())
        result, message = await self._broadcaster.send(self._session, record)
        if result in ("sent", "already known"):
            return
        if result == "nonce too low":
            await self._nonce_is_taken(record)
        elif is_new:
            self._release(record, result, message)
        else:
            log.warning("chain.not_sent_again", key=str(record.key), error=message)

    async def _nonce_is_taken(self, record: QueuedTransaction) -> None:
        """By ourselves, where an answer got lost; else the key was used elsewhere, or receipts lag behind nonces."""
        if not await self._is_mined(record):
            self._requeue(record)
            self._defer(record, SOON)
            self._nonces.stale = True

    def _release(self, record: QueuedTransaction, result: SendResult, message: str) -> None:
        self._nonces.release(record.nonce)
        self._requeue(record)
        self._defer(record, SOON if result == "underpriced" else LATER)
        event = "chain.unfunded" if result == "unfunded" else "chain.refused"
        log.warning(event, key=str(record.key), error=message, account=self._address)

    def _requeue(self, record: QueuedTransaction) -> None:
        """Drop a record's transaction; a filler has no purpose without its nonce."""
        state: Literal["queued", "settled"] = "settled" if record.command is None else "queued"
        self._queue.put(msgspec.structs.replace(record, state=state, nonce=-1, raw="", hashes=()))

    # --- from sent to settled -----------------------------------------------------------------------------------

    async def _check_sent(self, record: QueuedTransaction) -> None:
        """Settle a mined transaction; send a lost one again; bump the fees of a stuck one."""
        if await self._is_mined(record):
            return
        known = await self._session.request("eth_getTransactionByHash", record.hashes[-1])
        base = self._head.base_fee if self._head else 0
        if known is None and await self._precheck(record) == Outcome(ok=False, error="SeedChanged"):
            await self._fill(record.nonce, record, base)
        elif known is None and record.max_fee >= base:
            await self._broadcast(record, is_new=False)
        elif known is None or self._is_stuck(record):
            dearer = self._broadcaster.with_bumped_fees(self._session, record, base)
            if dearer:  # else the limit is reached: wait for cheaper blocks
                await self._broadcast(dearer, is_new=False)

    def _is_stuck(self, record: QueuedTransaction) -> bool:
        """Return True if it is late by blocks and by the clock: blocks alone can come as fast as transactions do."""
        block, at = self._sent_at.setdefault(record.key, (self._head.number if self._head else 0, trio.current_time()))
        blocks = self._head.number - block if self._head else 0
        return blocks >= STUCK_BLOCKS and trio.current_time() - at >= self._rules.stuck_seconds

    async def _is_mined(self, record: QueuedTransaction) -> bool:
        """Return True if a transaction is mined; settle it once it is deep enough."""
        for name in reversed(record.hashes):
            receipt = await self._session.request("eth_getTransactionReceipt", name)
            if not receipt or not receipt["blockNumber"]:
                continue
            depth = (self._head.number if self._head else 0) - int(receipt["blockNumber"], 16)
            if depth >= self._rules.confirmations or self._rules.confirmations == 0:
                await self._mined(record, receipt)
            return True
        return False

    async def _mined(self, record: QueuedTransaction, receipt: dict[str, Any]) -> None:
        session = self._session
        inclusion = Inclusion(str(receipt["transactionHash"]), int(receipt["blockNumber"], 16))
        if isinstance(record.command, RelayMessages) and session.relayer:
            session.relayer.spent(int(receipt["gasUsed"], 16), self._clock())
        if int(receipt["status"], 16):
            await self._settle(record, DONE, inclusion)
            return
        log.info("chain.reverted", key=str(record.key), transaction=inclusion.transaction)
        now = self._head.timestamp if self._head else 0
        verdict = await outcomes.of_failed_receipt(session, record, receipt, now)
        await self._conclude(record, verdict, inclusion)

    async def _settle(self, record: QueuedTransaction, outcome: Outcome, inclusion: Inclusion = NOWHERE) -> None:
        done = self._queue.put(
            msgspec.structs.replace(
                record,
                state="settled",
                ok=outcome.ok,
                error=outcome.error,
                transaction=inclusion.transaction,
                block=inclusion.block,
            )
        )
        self._schedule.forget(record.key)
        self._sent_at.pop(record.key, None)
        if record.command is not None:
            log.info(
                "chain.settled",
                key=str(record.key),
                ok=outcome.ok,
                error=outcome.error,
                transaction=inclusion.transaction,
            )
            await self._settled(done.report)

    async def _fill(self, nonce: int, replaced: QueuedTransaction | None = None, base: int = 0) -> None:
        """Take a nonce with an empty transfer. A transaction that it replaces must not be mined any more."""
        filler = await self._broadcaster.filler(self._session, nonce, replaced, base)
        if replaced and replaced.command is not None:
            dropped = msgspec.structs.replace(replaced, raw="", hashes=())
            await self._settle(dropped, Outcome(ok=False, error="SeedChanged"))
        await self._broadcast(filler, is_new=False)
