"""Block headers, and the updates of the block follower. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from protocols.identifiers import Address, keccak256

Log: TypeAlias = dict[str, Any]
"""A log as the RPC gives it."""


class BlockHead(msgspec.Struct, frozen=True):
    """A block header; `timestamp` in chain seconds, `base_fee` in wei per gas."""

    number: int
    hash: str
    parent: str
    timestamp: int
    bloom: int
    base_fee: int

    def may_hold_logs_of(self, address: Address) -> bool:
        """Return True if the block may hold logs of a contract (Bloom filter, Yellow Paper 4.3.1)."""
        hashed = keccak256(bytes.fromhex(address[2:]))
        bits = (int.from_bytes(hashed[i : i + 2], "big") & 2047 for i in (0, 2, 4))
        return all(self.bloom >> bit & 1 for bit in bits)


class BlockAdded(msgspec.Struct, frozen=True):
    """A block joined the chain's end, with the contract's logs in it."""

    head: BlockHead
    logs: list[Log]


class BlockUndone(msgspec.Struct, frozen=True):
    """The chain's last block left it; its logs, the newest first."""

    head: BlockHead
    logs: list[Log]


class RangeFilled(msgspec.Struct, frozen=True):
    """Logs of old blocks `first` to `last`, too deep to be undone one by one."""

    logs: list[Log]
    first: int
    last: int


class ChainReset(msgspec.Struct, frozen=True):
    """A reorg went deeper than the window: forget everything, the whole history follows again."""


Update: TypeAlias = BlockAdded | BlockUndone | RangeFilled | ChainReset


def parse_head(block: dict[str, Any]) -> BlockHead:
    """Read a header in the RPC's form, already validated (`node.chain.rpc.schemas`)."""
    return BlockHead(
        int(block["number"], 16),
        block["hash"],
        block["parentHash"],
        int(block["timestamp"], 16),
        int(block.get("logsBloom") or "0x0", 16),
        int(block.get("baseFeePerGas") or "0x0", 16),
    )
