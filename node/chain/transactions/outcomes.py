"""How a command ended: before it was sent, when a simulation refused it, or once it was mined."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from node.chain.contract.abi import Revert
from node.chain.contract.reader import DONE, Outcome
from node.chain.rpc.client import RpcError
from node.chain.transactions.chain_session import ChainSession
from node.chain.transactions.tx_queue import QueuedTransaction

Verdict: TypeAlias = Outcome | Literal["retry", "wait"]
"""An outcome, or that a transaction is to be tried again: in a moment, or later."""


async def precheck(session: ChainSession, record: QueuedTransaction, now: int) -> Outcome | None:
    """Return how a command has ended before it is sent, None where sending it makes sense; `now` in chain seconds."""
    return await session.reader.precheck(record.command, session.voter, now)


async def of_revert(session: ChainSession, record: QueuedTransaction, revert: Revert) -> Verdict:
    """Return what a revert means for a command."""
    command = record.command
    if command is None:
        return Outcome(ok=False, error=revert.name)
    verdict = session.binding.classify(command, revert)
    if verdict == "compare":
        verdict = "done" if await session.reader.is_on_chain(command, session.voter) else "failed"
    if verdict == "retry" or verdict == "wait":
        return verdict
    return DONE if verdict == "done" else Outcome(ok=False, error=revert.name)


async def of_failed_receipt(
    session: ChainSession, record: QueuedTransaction, receipt: dict[str, Any], now: int
) -> Verdict:
    """Return what a mined but reverted transaction means for its command; `now` in chain seconds."""
    decided = await precheck(session, record, now)
    return decided or await of_revert(session, record, await _revert_of(session, record, receipt))


async def _revert_of(session: ChainSession, record: QueuedTransaction, receipt: dict[str, Any]) -> Revert:
    """Return the error of a mined, failed transaction, by calling it again on top of its block."""
    call = {"from": session.sender, "to": session.contract, "data": record.data}
    try:
        await session.request("eth_call", call, receipt["blockNumber"])
    except RpcError as error:
        return session.binding.abi.revert(error.data) or Revert("UnknownError", {})
    return Revert("OutOfGas", {}) if int(receipt["gasUsed"], 16) >= record.gas else Revert("UnknownError", {})
