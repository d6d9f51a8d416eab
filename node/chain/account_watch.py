"""This node's account and its entry in the register: read every while, and when a log names the node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
import trio

from node.chain.contract.reader import RelayReader
from node.chain.relay.relayer import spent_on
from node.chain.rpc.block_follower import BlockFollower
from node.chain.rpc.blocks import Log
from node.chain.rpc.client import RpcEndpoint, RpcError
from node.chain.transactions.fees import GWEI
from node.chain.transactions.tx_queue import TransactionQueue
from node.config import ChainSettings
from node.machine.inputs import DelegationRead, FundsChanged
from node.ports.service import Report
from protocols.delegation import renews
from protocols.deployment import NodeEntry
from protocols.identifiers import Address
from protocols.signed_messages import SignedDelegation

log = structlog.get_logger()

RESERVE_GAS = 2_000_000
"""A node relays while its balance pays for so much gas: its own messages come first."""
PAUSE_SECONDS = 15.0
"""Between two looks where no log names this node meanwhile."""


class AccountWatch:
    """Reports funds and delegation where they change.

    `register_entry` is None until it was read; it outlives connections.
    """

    def __init__(
        self,
        address: Address,
        settings: ChainSettings,
        queue: TransactionQueue,
        clock: Callable[[], float],
        confirmations: int,
    ) -> None:
        self.register_entry: NodeEntry | None = None
        self._address, self._settings, self._queue, self._clock = address, settings, queue, clock
        self._confirmations = confirmations
        self._delegation: SignedDelegation | None = None
        self._relays: bool | None = None
        self._reported = DelegationRead(0)
        self._wake = trio.Event()

    def use_delegation(self, delegation: SignedDelegation | None) -> None:
        """Take the owner's delegation that is at hand, and look again."""
        self._delegation = delegation
        self.wake()

    def wake(self) -> None:
        """Look again at once."""
        self._wake.set()

    def is_named(self, logs: Sequence[Log]) -> bool:
        """Return True if one of the contract's logs is about this node."""
        topic = "0x" + self._address[2:].zfill(64)
        return any(topic in found["topics"] for found in logs)

    async def run(self, endpoint: RpcEndpoint, reader: RelayReader, follower: BlockFollower, report: Report) -> None:
        """Look until cancelled. What the endpoint refuses is asked again the next time; other errors are raised."""
        self._relays = None
        while True:
            self._wake = trio.Event()
            try:
                await self._report_funds(endpoint, report)
                await self._report_delegation(reader, follower, report)
            except RpcError as error:
                log.warning("chain.account_unread", reason=str(error))
            with trio.move_on_after(PAUSE_SECONDS):
                await self._wake.wait()

    async def _report_funds(self, endpoint: RpcEndpoint, report: Report) -> None:
        """Report when this node can pay for others, and when no longer."""
        balance = int(await endpoint.request("eth_getBalance", self._address, "latest"), 16)
        price = int(await endpoint.request("eth_gasPrice"), 16)
        has_budget = spent_on(self._queue, self._clock()) < self._settings.relay_gas_per_day
        relays = self._settings.relay and balance >= RESERVE_GAS * price and has_budget
        if relays != self._relays:
            self._relays = relays
            log.info("chain.funds", relays=relays, balance_gwei=balance // GWEI)
            await report(FundsChanged(relays))

    async def _report_delegation(self, reader: RelayReader, follower: BlockFollower, report: Report) -> None:
        """Report when this node's delegation ends, and whether a newer one is ready to be submitted."""
        if follower.tip is None:
            return
        block = max(follower.tip.number - self._confirmations, follower.start)
        entry = self.register_entry = await reader.node(self._address, hex(block))
        signed = self._delegation
        is_renewal = signed is not None and entry.since and renews(signed.delegation, entry.serial, entry.expiry)
        found = DelegationRead(entry.expiry, signed.serial if signed is not None and is_renewal else 0)
        if found != self._reported:
            self._reported = found
            await report(found)
