"""The block follower: from an endpoint's heads to an exact, gap-free sequence of added and undone blocks."""

from __future__ import annotations

from collections.abc import Callable

import trio

from node.chain.rpc.blocks import BlockAdded, BlockHead, BlockUndone, ChainReset, Log, RangeFilled, Update, parse_head
from node.chain.rpc.client import ConnectionLostError, RpcEndpoint, RpcError
from protocols.identifiers import Address

WINDOW = 64
"""Newest blocks that are kept: a deeper reorg starts over."""
CATCH_UP = 12
"""Newest blocks that are fetched one by one after a gap; older ones come as ranges of logs."""
LAG_BLOCKS, LAG_SECONDS = 3, 120.0
"""An endpoint that is more blocks behind what this node has seen is left; what all of them say for so long is true."""
CHUNK = 2000
"""Blocks in one request for logs, at most."""


class BlockFollower:
    """Follows headers, not log subscriptions: those may lose or repeat logs over a reorg or a reconnection.

    It outlives connections: after a new one, the next `sync` emits what happened meanwhile. `emit` is called for each
    update in order; after an error in the middle of `sync`, what was emitted so far remains valid.
    """

    def __init__(
        self, address: Address, emit: Callable[[Update], None], topics: list[str], block_topics: list[str]
    ) -> None:
        """Take the contract's address, and the events (first topics) that are asked of old blocks and of new ones."""
        self.start = 0
        self._address = address
        self._emit = emit
        self._topics, self._block_topics = topics, block_topics
        self._step = CHUNK
        self._lagging_since: float | None = None
        self._chain: dict[int, BlockAdded] = {}

    @property
    def tip(self) -> BlockHead | None:
        """The newest block followed; None before the first `sync`."""
        return self._chain[max(self._chain)].head if self._chain else None

    def header(self, number: int) -> BlockHead | None:
        """Return a block of the window."""
        block = self._chain.get(number)
        return block.head if block else None

    def forget(self) -> None:
        """Forget everything: the next `sync` starts with the whole history."""
        self._chain.clear()
        self._emit(ChainReset())

    async def sync(self, endpoint: RpcEndpoint, head: BlockHead) -> None:
        """Follow everything up to `head`. Raises `RpcError`, `ConnectionLostError`."""
        tip = self.tip
        if tip is None:
            await self._fill(endpoint, self.start, head)
        elif head.hash == tip.hash:
            return
        elif head.parent == tip.hash:
            await self._add(endpoint, head)
        elif self._is_known(head):
            await self._cut_back_to(endpoint, head)
            return
        elif head.number > tip.number + WINDOW and await _is_canonical(endpoint, tip):
            self._chain.clear()
            await self._fill(endpoint, tip.number + 1, head)
        else:
            await self._reorganise(endpoint, head)
        self._lagging_since = None

    def _is_known(self, head: BlockHead) -> bool:
        mine = self._chain.get(head.number)
        return mine is not None and mine.head.hash == head.hash

    async def _cut_back_to(self, endpoint: RpcEndpoint, head: BlockHead) -> None:
        """Take a head that this node has gone beyond: it arrived late, the endpoint lags, or the chain was cut back.

        An endpoint that lags must not take this node back into rounds that are over. So the blocks above `head` stay,
        and another endpoint is tried. Only if for `LAG_SECONDS` all that is heard is this old, the chain was cut back.
        """
        latest = await _block(endpoint, "latest")
        if latest.hash != head.hash:
            return
        tip, now = self.tip, trio.current_time()
        assert tip is not None
        self._lagging_since = self._lagging_since or now
        if now - self._lagging_since >= LAG_SECONDS:
            self._undo_above(head.number)
        elif tip.number - head.number > LAG_BLOCKS:
            raise ConnectionLostError(f"the endpoint lags: it is at block {head.number}, this node at {tip.number}")

    async def _reorganise(self, endpoint: RpcEndpoint, head: BlockHead) -> None:
        """Walk back from `head` to a block of ours; undo what lies above it, add the new branch."""
        branch = [head]
        while not self._fits(branch[-1]):
            if branch[-1].number <= min(self._chain):
                self.forget()
                await self._fill(endpoint, self.start, head)
                return
            branch.append(await _block_by_hash(endpoint, branch[-1].parent))
        self._undo_above(branch[-1].number - 1)
        for new in reversed(branch):
            await self._add(endpoint, new)

    def _fits(self, head: BlockHead) -> bool:
        below = self._chain.get(head.number - 1)
        return below is not None and below.head.hash == head.parent

    def _undo_above(self, number: int) -> None:
        for gone in sorted((known for known in self._chain if known > number), reverse=True):
            block = self._chain.pop(gone)
            self._emit(BlockUndone(block.head, block.logs[::-1]))

    async def _add(self, endpoint: RpcEndpoint, head: BlockHead) -> None:
        logs: list[Log] = []
        if head.may_hold_logs_of(self._address):
            query = {"blockHash": head.hash, "address": self._address, "topics": [self._block_topics]}
            logs = await endpoint.request("eth_getLogs", query)
        block = BlockAdded(head, logs)
        self._chain[head.number] = block
        for old in [number for number in self._chain if number <= head.number - WINDOW]:
            del self._chain[old]
        self._emit(block)

    async def _fill(self, endpoint: RpcEndpoint, first: int, head: BlockHead) -> None:
        """Take old blocks as ranges of logs and the newest ones one by one."""
        last = max(first, head.number - CATCH_UP)
        await self._ranges(endpoint, first, last - 1)
        for number in range(last, head.number):
            block = await _block(endpoint, hex(number))
            tip = self.tip
            if tip is not None and block.parent != tip.hash:
                raise ConnectionLostError("the chain was reorganised while it was read")
            await self._add(endpoint, block)
        await self.sync(endpoint, head) if self.tip is not None else await self._add(endpoint, head)

    async def _ranges(self, endpoint: RpcEndpoint, first: int, last: int) -> None:
        while first <= last:
            end = min(first + self._step - 1, last)
            query = {
                "fromBlock": hex(first),
                "toBlock": hex(end),
                "address": self._address,
                "topics": [self._topics],
            }
            try:
                logs = await endpoint.request("eth_getLogs", query)
            except (RpcError, ConnectionLostError) as error:
                narrow, self._step = self._step == 1, max(1, self._step // 4)
                if narrow or isinstance(error, ConnectionLostError):
                    raise  # a connection that a long answer has ended asks for less the next time
                continue  # providers refuse wide ranges and long answers
            self._emit(RangeFilled(logs, first, end))
            first, self._step = end + 1, min(CHUNK, self._step * 2)


async def latest_head(endpoint: RpcEndpoint) -> BlockHead:
    """Ask for the newest header."""
    return await _block(endpoint, "latest")


async def _is_canonical(endpoint: RpcEndpoint, head: BlockHead) -> bool:
    block = await endpoint.request("eth_getBlockByNumber", hex(head.number), False)
    return bool(block) and block["hash"] == head.hash


async def _block(endpoint: RpcEndpoint, number: str) -> BlockHead:
    block = await endpoint.request("eth_getBlockByNumber", number, False)
    if block is None:
        raise ConnectionLostError(f"the endpoint has no block {number}: it lags or the chain was cut back")
    return parse_head(block)


async def _block_by_hash(endpoint: RpcEndpoint, block_hash: str) -> BlockHead:
    block = await endpoint.request("eth_getBlockByHash", block_hash, False)
    if block is None:
        raise ConnectionLostError("a parent block vanished: the chain was reorganised once more")
    return parse_head(block)
