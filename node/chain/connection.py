"""The life of a connection: endpoints in turn, then the contract's stages and peers as the blocks come."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

import structlog
import trio
from eth_abi.exceptions import DecodingError

from node.chain.contract.reader import CoordinatorReader, NoCoordinatorError
from node.chain.contract_access import FAULTS, ContractAccess
from node.chain.readers.detection import ContractInterface
from node.chain.rpc.block_follower import BlockFollower, latest_head
from node.chain.rpc.blocks import BlockAdded, BlockHead, Update, parse_head
from node.chain.rpc.client import ConnectionLostError, RpcEndpoint
from node.chain.rpc.failover import LAST_PAUSE, EndpointFailover, redact
from node.chain.stage_tracker import ClockOffset, StageTracker
from node.chain.transactions.tx_manager import TransactionManager
from node.chain.transactions.tx_queue import DeploymentKey, QueuedTransaction, TransactionQueue
from node.config import ChainSettings
from node.errors import leaves
from node.logs import redacted
from node.machine.inputs import ChainLost, ChainRestored, PauseChanged
from node.ports.service import Report
from protocols.deployment import CoordinatorFacts
from protocols.manifest import Manifest

log = structlog.get_logger()

PAUSE_SHARE = 0.2
"""No pause is longer than this share of the shortest stage: a vote has one stage to reach the chain once it is back."""

Work: TypeAlias = Callable[[RpcEndpoint, ContractInterface, CoordinatorFacts, BlockFollower], Awaitable[None]]
"""What is done beside following while a connection lasts; it ends by cancellation."""


class ChainConnection:
    """Stays connected to one of the endpoints and reports what the contract does.

    `manager` gets new heads and hears of pauses; `block_added` gets each new block.
    """

    def __init__(
        self,
        settings: ChainSettings,
        manifest: Manifest,
        access: ContractAccess,
        queue: TransactionQueue,
        manager: TransactionManager,
        block_added: Callable[[BlockAdded], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._access, self._queue, self._manager = settings, access, queue, manager
        self._block_added, self._clock = block_added, clock
        self._confirmations = manifest.confirmations
        self._last_pause = min(LAST_PAUSE, PAUSE_SHARE * min(stage.seconds for stage in manifest.stages))
        self._followed: tuple[BlockFollower, StageTracker] | None = None
        self._chain_id: int | None = None
        self._report: Report

    async def run(self, report: Report, work: Work) -> None:
        """Try the endpoints in turn for ever; the chain is lost while there is none that is worth trying at once."""
        self._report = report
        failover = EndpointFailover(self._settings.urls, self._last_pause)
        reported: Literal["lost", "restored"] | None = None
        while True:
            url, live, began = failover.url, trio.Event(), trio.current_time()
            reason, retry_after = await self._session(url, live, reported != "restored", work)
            failover.session_ended(trio.current_time() - began if live.is_set() else 0.0, retry_after)
            reported = "restored" if live.is_set() else reported
            log.warning("chain.disconnected", url=redact(url), reason=reason)
            if failover.pause and reported != "lost":
                reported = "lost"
                await report(ChainLost(reason))
            await trio.sleep(max(failover.pause * random.uniform(0.5, 1.0), retry_after if failover.pause else 0.0))

    async def _session(self, url: str, live: trio.Event, is_lost: bool, work: Work) -> tuple[str, float]:
        """Work over one endpoint until it fails; return why it did, and the pause in seconds that it asks for."""
        reasons: list[str] = []
        retry_after = 0.0
        try:
            async with self._access.dial(url, self._settings.poll_seconds) as endpoint:
                await self._follow(endpoint, live, is_lost, work)
        except* FAULTS as group:
            reasons = [str(redacted(str(error))) for error in leaves(group)]  # they go into the journal
            retry_after = max(getattr(error, "retry_after", 0.0) for error in leaves(group))
            if group.subgroup(DecodingError) and self._followed:
                self._followed[0].forget()  # what this endpoint said before is not to be trusted either
        return reasons[0] if reasons else "the connection ended", retry_after

    async def _follow(self, endpoint: RpcEndpoint, live: trio.Event, is_lost: bool, work: Work) -> None:
        """Fill the gap, report the present, then go on with each new head."""
        interface = await self._access.interface(endpoint)
        reader = interface.reader(endpoint)
        follower, tracker = self._followed = self._followed or self._new_follower(interface)
        facts = await reader.facts()
        self._require_same_deployment(facts)
        follower.start = facts.deployment_block
        head = await latest_head(endpoint)
        offset = ClockOffset(head.timestamp, self._clock())
        peers = tracker.restart()
        await follower.sync(endpoint, head)
        live.set()
        log.info("chain.connected", block=head.number, contract=self._access.address)
        if is_lost:
            await self._report(ChainRestored(offset.value))
        for peer in peers:
            await self._report(peer)
            tracker.reported(peer)
        await self._report_news(follower, tracker, reader)
        async with trio.open_nursery() as nursery:
            self._manager.new_head(head)
            nursery.start_soon(work, endpoint, interface, facts, follower)
            while True:
                head, pushed = await self._next_head(endpoint)
                now = self._clock()
                await follower.sync(endpoint, head)
                await self._report_news(follower, tracker, reader)
                self._manager.new_head(head)
                if pushed and offset.arrived(head.timestamp, now):
                    await self._report(ChainRestored(offset.value))

    def _new_follower(self, interface: ContractInterface) -> tuple[BlockFollower, StageTracker]:
        tracker = StageTracker(self._confirmations, interface.binding)

        def take(update: Update) -> None:
            tracker.take(update)
            if isinstance(update, BlockAdded):
                self._block_added(update)

        binding = interface.binding
        return BlockFollower(self._access.address, take, binding.topics, binding.block_topics), tracker

    async def _next_head(self, endpoint: RpcEndpoint) -> tuple[BlockHead, bool]:
        """Return the next head and whether it was pushed; after a silence ask, for a subscription can die quietly."""
        pushed = None
        with trio.move_on_after(self._settings.poll_seconds):
            try:
                pushed = await endpoint.heads.receive()
            except trio.EndOfChannel:
                raise ConnectionLostError("the subscription ended") from None
        return (parse_head(pushed), True) if pushed is not None else (await latest_head(endpoint), False)

    async def _report_news(self, follower: BlockFollower, tracker: StageTracker, reader: CoordinatorReader) -> None:
        """Report what is new in the last updates; read the stage from the contract where they do not show it."""
        news = tracker.news()
        for one in news:
            await self._report(one)
            tracker.reported(one)
        if any(isinstance(one, PauseChanged) for one in news):
            self._manager.wake(retry=True)
        tip = follower.tip
        if tracker.stale and tip is not None:
            block = max(tip.number - self._confirmations, follower.start)
            until = await reader.paused_until(block)
            for one in tracker.read(await reader.stage(block), until if until > tip.timestamp else 0):
                await self._report(one)

    def _require_same_deployment(self, facts: CoordinatorFacts) -> None:
        """Raise `NoCoordinatorError` where this is another chain than the outbox was used with.

        It is known by the block of the deployment: a local chain that is started afresh repeats ids and addresses.
        """
        if self._chain_id not in (None, facts.chain_id):
            raise NoCoordinatorError(f"the endpoint is on chain {facts.chain_id} now, it was on {self._chain_id}")
        self._chain_id = facts.chain_id
        found = facts.deployment_block_hash.hex()
        known = self._queue.get(DeploymentKey())
        if known is not None and known.transaction != found:
            raise NoCoordinatorError(
                "this is not the chain that this node joined: the coordinator's deployment block differs; "
                "check [chain] urls, or join the new swarm with a new data directory"
            )
        self._queue.put(QueuedTransaction(key=DeploymentKey(), command=None, state="settled", transaction=found))
