"""Fetching bodies: here already, inside the announcement, or from peers; checked before they are stored."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import structlog
import trio

from node.machine.commands import FetchRollouts
from node.machine.inputs import RolloutsArrived, RolloutsRefused
from node.network.pubsub.announcer import announcement_of
from node.network.pubsub.validator import AnnouncementValidator
from node.network.reqresp.body_exchange import BodyExchange
from node.ports import Bodies, CheckBody, Report, Verdict
from protocols.admission import Slot
from protocols.identifiers import Address

log = structlog.get_logger()

ASKED_AT_ONCE, STRANGERS_ASKED_AT_ONCE = 16, 8
"""Requests under way at a time for bodies of peers with credit, and of strangers, who so can't keep those waiting. A
body that nobody serves waits between its requests without holding one of them."""
SOURCES = 6
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two rounds of asking; after the last one the body counts as unavailable."""


class BodyFetcher:
    """A queue of wanted bodies that outlives restarts of the network."""

    def __init__(
        self,
        intake: AnnouncementValidator,
        bodies: Bodies,
        check: CheckBody,
        size_limit: int,
        credit: Callable[[Address], bool] = lambda peer: False,
    ) -> None:
        self._intake, self._bodies, self._check, self._size_limit = intake, bodies, check, size_limit
        self._credit = credit
        self._wanted_in, self._wanted_out = trio.open_memory_channel[FetchRollouts](math.inf)
        self._under_way: set[FetchRollouts] = set()
        self._asks = trio.CapacityLimiter(ASKED_AT_ONCE)
        self._strangers_asks = trio.CapacityLimiter(STRANGERS_ASKED_AT_ONCE)
        self._checks = trio.CapacityLimiter(1)

    def want(self, command: FetchRollouts) -> None:
        """Queue a body, unless the same one is queued. The machine bounds the queue: one per accepted announcement."""
        if command not in self._under_way:
            self._under_way.add(command)
            self._wanted_in.send_nowait(command)

    async def run(self, exchange: BodyExchange, sources: Callable[[], set[str]], report: Report) -> None:
        """Fetch until cancelled; what is cut off in the middle is queued again.

        Each body has a task of its own: with a fixed number of workers, as many peers that announce and do not serve
        would keep everybody else's bodies waiting.
        """
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._fetch, await self._wanted_out.receive(), exchange, sources, report)

    async def _fetch(
        self, command: FetchRollouts, exchange: BodyExchange, sources: Callable[[], set[str]], report: Report
    ) -> None:
        try:
            await report(await self._obtain(command, exchange, sources))
        except BaseException:
            self._wanted_in.send_nowait(command)
            raise
        self._under_way.discard(command)

    async def _obtain(
        self, command: FetchRollouts, exchange: BodyExchange, sources: Callable[[], set[str]]
    ) -> RolloutsArrived | RolloutsRefused:
        slot = Slot(peer=command.peer, round=command.round, stage=command.stage, seed=command.seed)
        body = self._bodies.get(command.body) or self._intake.inline(slot, command.body)
        if body is None and command.size <= self._size_limit:
            body = await self._ask(command, slot, exchange, sources)
        verdict = Verdict(reason="unavailable") if body is None else await self._verdict(command, body)
        self._intake.counters[f"body-{verdict.reason or 'accepted'}"] += 1
        where = (command.peer, command.round, command.stage, command.body)
        if body is None or verdict.reason:
            return RolloutsRefused(*where, verdict.reason, verdict.missing)
        self._bodies.put(command.body, body, command.round)
        return RolloutsArrived(*where, verdict.groups, verdict.reward, verdict.alike, verdict.doubt)

    async def _ask(
        self, command: FetchRollouts, slot: Slot, exchange: BodyExchange, sources: Callable[[], set[str]]
    ) -> bytes | None:
        """Ask the announcer, then others, a few times; give up when the round is no longer accepted.

        Meanwhile the body may come by another announcement of it, whose size is the true one.
        """
        asks = self._asks if self._credit(command.peer) else self._strangers_asks
        for pause in (*PAUSES, 0.0):
            for peer in self._order(command, sources()):
                async with asks:
                    body = await exchange.ask(peer, command.body, command.size)
                if body is not None:
                    return body
            if not self._intake.is_current(slot):
                return None
            await trio.sleep(pause)
            if (body := self._bodies.get(command.body)) is not None:
                return body
        return None

    def _order(self, command: FetchRollouts, connected: set[str]) -> list[str]:
        announcer = self._intake.peer_id(command.peer)
        others = [peer for peer in connected if peer != announcer]
        random.shuffle(others)
        first = [announcer] if announcer in connected and announcer is not None else []
        return (first + others)[:SOURCES]

    async def _verdict(self, command: FetchRollouts, body: bytes) -> Verdict:
        """Run the check, in a thread, as a grader may take its time: foreign data must not stop this node."""
        window = self._intake.window
        said = announcement_of(command, window.swarm if window else bytes(32))
        try:
            return await trio.to_thread.run_sync(self._check, command.peer, said, body, limiter=self._checks)
        except Exception as error:
            log.exception("gossip.check_failed", peer=command.peer, error=type(error).__name__)
            return Verdict(reason="check-failed")
