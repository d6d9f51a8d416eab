"""The event bus: inputs of many sources for the one loop, and its results for subscribers.

Each source has a bounded queue, and a policy for inputs that find it full:

- chain, trainer, operator block: their reports are never lost, so they wait;
- timers coalesce: a timer that fires again before its first firing was taken counts once;
- gossip drops the newest and counts it: anybody may send, and a lost announcement costs one peer's rollouts of a stage.

An input that states a value (how many peers are connected) replaces the queued one, so the latest is never dropped.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator
from enum import Enum
from types import TracebackType
from typing import Self

import msgspec
import trio

from node.machine.inputs import AnyInput, FundsChanged, NetworkChanged, Stamped, TimerFired
from node.machine.state import Output
from node.ports.service import Report


class Policy(Enum):
    """What happens to an input that finds its queue full."""

    BLOCK = "block"
    DROP_NEWEST = "drop newest"


class SourcePolicy(msgspec.Struct, frozen=True):
    """How much of one source is queued, in inputs, and what happens beyond."""

    size: int
    policy: Policy


SOURCES: dict[str, SourcePolicy] = {
    "operator": SourcePolicy(8, Policy.BLOCK),
    "chain": SourcePolicy(256, Policy.BLOCK),
    "trainer": SourcePolicy(64, Policy.BLOCK),
    "timers": SourcePolicy(64, Policy.BLOCK),
    "gossip": SourcePolicy(1024, Policy.DROP_NEWEST),
}
"""Every source. Timers never reach their bound: names coalesce, and the machine knows a handful of them."""


class BusEvent(msgspec.Struct, frozen=True):
    """What a subscriber receives: an input the machine took, and the commands it answered with."""

    stamped: Stamped
    outputs: tuple[Output, ...]


def coalescing_key(happened: AnyInput) -> str | None:
    """Return the key under which only the latest input counts; None if each one does."""
    match happened:
        case TimerFired(name=name):
            return f"timer:{name}"
        case NetworkChanged():
            return "network"
        case FundsChanged():
            return "funds"
        case _:
            return None


class Queue:
    """The bounded queue of one source; it decides, the bus waits."""

    def __init__(self, source: SourcePolicy) -> None:
        self.source = source
        self.freed = trio.lowlevel.ParkingLot()
        self._items: deque[AnyInput] = deque()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether a new input finds no place."""
        return len(self._items) >= self.source.size

    def coalesce(self, happened: AnyInput) -> bool:
        """Replace a queued input of the same key by `happened`; return True if there was one."""
        key = coalescing_key(happened)
        if key is None:
            return False
        for index, queued in enumerate(self._items):
            if coalescing_key(queued) == key:
                self._items[index] = happened
                return True
        return False

    def add(self, happened: AnyInput) -> None:
        """Append an input."""
        self._items.append(happened)

    def take(self) -> AnyInput:
        """Remove the oldest input and let one waiting reporter in."""
        happened = self._items.popleft()
        self.freed.unpark()
        return happened


class Subscription:
    """Events for one subscriber. `lagged` counts those it lost because it was too slow."""

    def __init__(self, size: int, counters: Counter[str]) -> None:
        self.lagged = 0
        self._counters = counters
        self._send, self._receive = trio.open_memory_channel[BusEvent](size)

    def offer(self, event: BusEvent) -> bool:
        """Deliver an event or count it as lost; return False once the subscriber is gone."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.lagged += 1
            self._counters["subscribers.lagged"] += 1
        except trio.BrokenResourceError:
            return False
        return True

    async def next(self) -> BusEvent:
        """Return the next event. Raises `trio.ClosedResourceError` after `close`."""
        return await self._receive.receive()

    async def __aiter__(self) -> AsyncIterator[BusEvent]:
        async for event in self._receive:
            yield event

    def close(self) -> None:
        """End the subscription."""
        self._receive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Bus:
    """All queues of one node. One consumer calls `next`; any task reports, publishes, subscribes.

    `counters` holds SOURCE.taken, SOURCE.dropped, SOURCE.coalesced, SOURCE.waited and subscribers.lagged.
    """

    def __init__(self, sources: dict[str, SourcePolicy] | None = None) -> None:
        self.counters: Counter[str] = Counter()
        self._queues = {name: Queue(source) for name, source in (sources or SOURCES).items()}
        self._turn = deque(self._queues)
        self._filled = trio.lowlevel.ParkingLot()
        self._subscriptions: list[Subscription] = []

    # --- inputs -------------------------------------------------------------------------------------------------

    def reporter(self, source: str) -> Report:
        """Return the function by which `source` reports. Raises KeyError for a source that is not in the table."""
        queue = self._queues[source]

        async def report(happened: AnyInput) -> None:
            await trio.lowlevel.checkpoint()
            if queue.coalesce(happened):
                self.counters[f"{source}.coalesced"] += 1
                return
            if queue.full and queue.source.policy is Policy.DROP_NEWEST and coalescing_key(happened) is None:
                self.counters[f"{source}.dropped"] += 1
                return
            if queue.source.policy is Policy.BLOCK:
                await self._wait_for_room(source, queue)
            queue.add(happened)
            self._filled.unpark()

        return report

    async def _wait_for_room(self, source: str, queue: Queue) -> None:
        if not queue.full:
            return
        self.counters[f"{source}.waited"] += 1
        while queue.full:
            await queue.freed.park()

    def depths(self) -> dict[str, int]:
        """Return how many inputs of each source wait."""
        return {name: len(queue) for name, queue in self._queues.items()}

    async def next(self) -> AnyInput:
        """Return the next input; sources that have something take turns, each in its own order."""
        await trio.lowlevel.checkpoint()
        while (name := self._ready()) is None:
            await self._filled.park()
        self._turn.remove(name)
        self._turn.append(name)
        self.counters[f"{name}.taken"] += 1
        return self._queues[name].take()

    def _ready(self) -> str | None:
        return next((name for name in self._turn if len(self._queues[name])), None)

    async def __aiter__(self) -> AsyncIterator[AnyInput]:
        while True:
            yield await self.next()

    # --- subscriptions ------------------------------------------------------------------------------------------

    def subscribe(self, size: int = 256) -> Subscription:
        """Subscribe from now on; a subscriber that is more than `size` events behind loses the newest."""
        subscription = Subscription(size, self.counters)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, stamped: Stamped, outputs: tuple[Output, ...]) -> None:
        """Deliver an event to every subscriber; never waits."""
        if self._subscriptions:
            event = BusEvent(stamped, outputs)
            self._subscriptions = [each for each in self._subscriptions if each.offer(event)]
