"""Fetching bodies: here already, inside the announcement, or from peers; checked before they are stored."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import structlog
import trio

from node.backoff import Backoff
from node.machine.commands import FetchRollouts
from node.machine.inputs import RolloutsArrived, RolloutsRefused
from node.network.pubsub.announcer import announcement_of
from node.network.pubsub.validator import AnnouncementValidator
from node.network.reqresp.body_exchange import BodyExchange
from node.ports.bodies import Bodies, CheckBody, Verdict
from node.ports.service import Report
from protocols.admission import Slot
from protocols.identifiers import Address

log = structlog.get_logger()

MAX_REQUESTS, MAX_UNTRUSTED_REQUESTS = 16, 8
"""Parallel requests for bodies of peers with a positive score, and of all others. The limits are separate, so that
unknown peers cannot delay trusted ones. A body that nobody serves waits between its requests without holding one."""
MAX_SOURCES = 6
RETRIES, RETRY = 5, Backoff(first=0.5, longest=8.0)
"""Rounds of asking after the first one, and the pauses before them; then the body counts as unavailable."""


class BodyFetcher:
    """A queue of wanted bodies that outlives restarts of the network."""

    def __init__(
        self,
        validator: AnnouncementValidator,
        bodies: Bodies,
        check: CheckBody,
        size_limit: int,
        has_positive_score: Callable[[Address], bool] = lambda peer: False,
    ) -> None:
        self._validator, self._bodies, self._check, self._size_limit = validator, bodies, check, size_limit
        self._has_positive_score = has_positive_score
        self._queue_in, self._queue_out = trio.open_memory_channel[FetchRollouts](math.inf)
        self._pending: set[FetchRollouts] = set()
        self._requests = trio.CapacityLimiter(MAX_REQUESTS)
        self._untrusted_requests = trio.CapacityLimiter(MAX_UNTRUSTED_REQUESTS)
        self._checks = trio.CapacityLimiter(1)

    def enqueue(self, command: FetchRollouts) -> None:
        """Queue a body, unless the same one is queued. The machine bounds the queue: one per accepted announcement."""
        if command not in self._pending:
            self._pending.add(command)
            self._queue_in.send_nowait(command)

    async def run(self, exchange: BodyExchange, sources: Callable[[], set[str]], report: Report) -> None:
        """Fetch until cancelled; what is cut off in the middle is queued again.

        Each body has a task of its own: with a fixed number of workers, as many peers that announce and do not serve
        would keep everybody else's bodies waiting.
        """
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._fetch, await self._queue_out.receive(), exchange, sources, report)

    async def _fetch(
        self, command: FetchRollouts, exchange: BodyExchange, sources: Callable[[], set[str]], report: Report
    ) -> None:
        done = False
        try:
            await report(await self._obtain(command, exchange, sources))
            done = True
        finally:
            if not done:
                self._queue_in.send_nowait(command)
        self._pending.discard(command)

    async def _obtain(
        self, command: FetchRollouts, exchange: BodyExchange, sources: Callable[[], set[str]]
    ) -> RolloutsArrived | RolloutsRefused:
        slot = Slot(peer=command.peer, round=command.round, stage=command.stage, seed=command.seed)
        body = self._bodies.get(command.body) or self._validator.inline(slot, command.body)
        if body is None and command.size <= self._size_limit:
            body = await self._ask(command, slot, exchange, sources)
        verdict = Verdict(reason="unavailable") if body is None else await self._verdict(command, body)
        self._validator.counters[f"body-{verdict.reason or 'accepted'}"] += 1
        where = (command.peer, command.round, command.stage, command.body)
        if body is None or verdict.reason:
            return RolloutsRefused(*where, verdict.reason, verdict.missing)
        self._keep(command, body)
        return RolloutsArrived(*where, verdict.groups, verdict.reward, verdict.alike, verdict.doubt)

    def _keep(self, command: FetchRollouts, body: bytes) -> None:
        """Store a checked body. One that can't be stored counts all the same, and is only not trained on."""
        try:
            self._bodies.put(command.body, body, command.round)
        except OSError:
            self._validator.counters["body-not-kept"] += 1

    async def _ask(
        self, command: FetchRollouts, slot: Slot, exchange: BodyExchange, sources: Callable[[], set[str]]
    ) -> bytes | None:
        """Ask the announcer, then others, a few times; give up when the round is no longer accepted.

        Meanwhile the body may come by another announcement of it, whose size is the true one.
        """
        requests = self._requests if self._has_positive_score(command.peer) else self._untrusted_requests
        for pause in (*map(RETRY.pause, range(1, RETRIES + 1)), 0.0):
            for peer in self._order(command, sources()):
                async with requests:
                    body = await exchange.ask(peer, command.body, command.size)
                if body is not None:
                    return body
            if not self._validator.is_current(slot):
                return None
            await trio.sleep(pause)
            if (body := self._bodies.get(command.body)) is not None:
                return body
        return None

    def _order(self, command: FetchRollouts, connected: set[str]) -> list[str]:
        announcer = self._validator.peer_id(command.peer)
        others = [peer for peer in connected if peer != announcer]
        random.shuffle(others)
        first = [announcer] if announcer in connected and announcer is not None else []
        return (first + others)[:MAX_SOURCES]

    async def _verdict(self, command: FetchRollouts, body: bytes) -> Verdict:
        """Run the check, in a thread: a grader may take its time."""
        window = self._validator.window
        announcement = announcement_of(command, window.swarm if window else bytes(32))
        try:
            return await trio.to_thread.run_sync(self._check, command.peer, announcement, body, limiter=self._checks)
        # The check runs games and graders of other packages over foreign data: neither may stop this node.
        except Exception as error:
            log.exception("gossip.check_failed", peer=command.peer, error=type(error).__name__)
            return Verdict(reason="check-failed")
