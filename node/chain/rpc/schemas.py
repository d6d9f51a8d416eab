"""Response schemas: what an endpoint's answers must look like. Pure.

Fields that the node does not read are not checked: servers differ in what they leave out.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Quantity = Annotated[str, Meta(pattern="^0x[0-9a-fA-F]{1,64}$")]
Data = Annotated[str, Meta(pattern="^0x(?:[0-9a-fA-F]{2})*$")]
Hash = Annotated[str, Meta(pattern="^0x[0-9a-fA-F]{64}$")]


class _Header(msgspec.Struct):
    number: Quantity
    hash: Hash
    parent: Hash = msgspec.field(name="parentHash")
    timestamp: Quantity
    bloom: Annotated[str, Meta(pattern="^0x[0-9a-fA-F]{1,512}$")] | None = msgspec.field(name="logsBloom", default=None)
    base_fee: Quantity | None = msgspec.field(name="baseFeePerGas", default=None)


class _Log(msgspec.Struct):
    topics: list[Hash]
    data: Data
    block: Quantity = msgspec.field(name="blockNumber")
    block_hash: Hash = msgspec.field(name="blockHash")
    transaction: Hash = msgspec.field(name="transactionHash")
    place: Quantity = msgspec.field(name="logIndex")


class _Receipt(msgspec.Struct):
    transaction: Hash = msgspec.field(name="transactionHash")
    block: Quantity | None = msgspec.field(name="blockNumber")
    gas: Quantity = msgspec.field(name="gasUsed")
    status: Quantity


class _FeeHistory(msgspec.Struct):
    base_fees: Annotated[list[Quantity], Meta(min_length=1)] = msgspec.field(name="baseFeePerGas")
    reward: list[list[Quantity]] | None = None


HEADS = "newHeads"
"""In place of a method, for headers that are pushed."""

RESPONSE_SCHEMAS: dict[str, Any] = {
    "eth_blockNumber": Quantity,
    "eth_call": Data,
    "eth_chainId": Quantity,
    "eth_estimateGas": Quantity,
    "eth_feeHistory": _FeeHistory,
    "eth_gasPrice": Quantity,
    "eth_getBalance": Quantity,
    "eth_getBlockByHash": _Header | None,
    "eth_getBlockByNumber": _Header | None,
    "eth_getCode": Data | None,
    "eth_getLogs": list[_Log],
    "eth_getTransactionByHash": dict[str, Any] | None,
    "eth_getTransactionCount": Quantity,
    "eth_getTransactionReceipt": _Receipt | None,
    "eth_sendRawTransaction": Hash,
    "eth_subscribe": str,
    HEADS: _Header,
}
"""By method. A transaction and a receipt that are not mined yet may be null."""


def validated(method: str, result: Any) -> Any:
    """Return a response unchanged. Raises ValueError where it does not fit the method's schema."""
    try:
        msgspec.convert(result, RESPONSE_SCHEMAS[method])
    except msgspec.ValidationError as error:
        raise ValueError(f"it answered garbage: {error}") from error
    return result
