"""The event bus: bounded queues, fairness, fan-out."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.machine.inputs import (
    AnyInput,
    ChainLost,
    CheckpointSaved,
    DrainRequested,
    FundsChanged,
    NetworkChanged,
    RolloutsRefused,
    Stamped,
    TimerFired,
)
from node.runtime.bus import SOURCES, Bus, Policy, SourcePolicy


def refused(stage: int) -> AnyInput:
    return RolloutsRefused("0xpeer", 1, stage, bytes(32), "schema")


async def taken(bus: Bus, count: int) -> list[Any]:
    with trio.fail_after(1):
        return [await bus.next() for _ in range(count)]


async def test_one_source_keeps_its_order() -> None:
    """Inputs of a source come out as they went in."""
    bus = Bus()
    report = bus.reporter("trainer")
    for number in range(5):
        await report(CheckpointSaved(number))
    assert [each.round for each in await taken(bus, 5)] == [0, 1, 2, 3, 4]


async def test_a_flood_of_gossip_does_not_starve_the_others() -> None:
    """With a thousand gossip inputs queued, one of chain and operator each are among the first three taken."""
    bus = Bus()
    for number in range(1000):
        await bus.reporter("gossip")(refused(number))
    await bus.reporter("chain")(ChainLost("away"))
    await bus.reporter("operator")(DrainRequested())
    kinds = {type(each) for each in await taken(bus, 3)}
    assert kinds == {RolloutsRefused, ChainLost, DrainRequested}


async def test_gossip_beyond_its_bound_is_dropped_and_counted() -> None:
    """The oldest stay, the newest are dropped, and the counter says how many."""
    bus = Bus({"gossip": SourcePolicy(3, Policy.DROP_NEWEST)})
    for number in range(8):
        await bus.reporter("gossip")(refused(number))
    assert [each.stage for each in await taken(bus, 3)] == [0, 1, 2]
    assert bus.counters["gossip.dropped"] == 5
    assert bus.depths() == {"gossip": 0}


async def test_the_last_number_of_peers_is_never_dropped() -> None:
    """A change of the network goes into a full gossip queue, and the latest one is what the machine sees."""
    bus = Bus({"gossip": SourcePolicy(2, Policy.DROP_NEWEST)})
    report = bus.reporter("gossip")
    for happened in (refused(0), refused(1), NetworkChanged(1), NetworkChanged(2), NetworkChanged(0)):
        await report(happened)
    assert [each for each in await taken(bus, 3) if isinstance(each, NetworkChanged)] == [NetworkChanged(0)]


async def test_the_last_word_on_funds_is_what_counts() -> None:
    """Whether there are funds is a level: of several reports that wait the machine sees the latest."""
    bus = Bus()
    for relays in (True, False, True):
        await bus.reporter("chain")(FundsChanged(relays))
    assert await taken(bus, 1) == [FundsChanged(True)]
    assert bus.depths()["chain"] == 0


async def test_timers_of_one_name_coalesce() -> None:
    """A timer that fires three times before it is taken counts once; another name counts for itself."""
    bus = Bus()
    for name in ("stage", "stage", "turn", "stage"):
        await bus.reporter("timers")(TimerFired(name))
    assert await taken(bus, 2) == [TimerFired("stage"), TimerFired("turn")]
    assert bus.counters["timers.coalesced"] == 2
    assert bus.depths()["timers"] == 0


async def test_a_blocking_source_waits_and_loses_nothing() -> None:
    """A chain that reports more than fits waits for room; every input arrives, in order."""
    bus = Bus({"chain": SourcePolicy(2, Policy.BLOCK)})
    done = []

    async def produce() -> None:
        for number in range(6):
            await bus.reporter("chain")(ChainLost(str(number)))
            done.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await wait_all_tasks_blocked()
        assert done == [0, 1]
        assert [each.reason for each in await taken(bus, 6)] == list("012345")
    assert bus.counters["chain.waited"] >= 1


async def test_a_cancelled_reporter_leaves_the_queue_usable() -> None:
    """A reporter that gives up waiting adds nothing, and the next one gets the room."""
    bus = Bus({"chain": SourcePolicy(1, Policy.BLOCK)})
    report = bus.reporter("chain")
    await report(ChainLost("first"))
    with trio.move_on_after(0) as scope:
        await report(ChainLost("given up"))
    assert scope.cancelled_caught
    assert await taken(bus, 1) == [ChainLost("first")]
    await report(ChainLost("second"))
    assert await taken(bus, 1) == [ChainLost("second")]


async def test_the_consumer_sleeps_until_something_happens() -> None:
    """Iterating an empty bus waits; a report wakes it."""
    bus = Bus()
    heard: list[AnyInput] = []

    async def consume() -> None:
        async for happened in bus:
            heard.append(happened)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await wait_all_tasks_blocked()
        assert heard == []
        await bus.reporter("operator")(DrainRequested())
        await wait_all_tasks_blocked()
        assert heard == [DrainRequested()]
        nursery.cancel_scope.cancel()


async def test_a_slow_subscriber_loses_events_and_slows_nobody() -> None:
    """Of ten happenings a subscriber with room for four keeps the first four; a quick one gets all ten."""
    bus = Bus()
    slow, quick = bus.subscribe(4), bus.subscribe(16)
    for number in range(10):
        bus.publish(Stamped(float(number), CheckpointSaved(number)), ())
    assert slow.lagged == 6
    assert quick.lagged == 0
    assert bus.counters["subscribers.lagged"] == 6
    assert [(await slow.next()).stamped.at for _ in range(4)] == [0, 1, 2, 3]


async def test_a_closed_subscription_is_forgotten() -> None:
    """After the listener has gone, publishing neither fails nor counts."""
    bus = Bus()
    with bus.subscribe(1) as subscription:
        pass
    for number in range(3):
        bus.publish(Stamped(0.0, CheckpointSaved(number)), ())
    assert subscription.lagged == 0
    with pytest.raises(trio.ClosedResourceError):
        await subscription.next()


def test_only_gossip_may_lose_inputs() -> None:
    """Every other source blocks: votes and results depend on what they report."""
    assert {name for name, source in SOURCES.items() if source.policy is Policy.DROP_NEWEST} == {"gossip"}
