"""Topics over real hosts: each has its own validator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2

from node.identity import new_key
from node.network.host import Host, open_host
from node.network.pubsub.pubsub import SafePubsub
from node.network.pubsub.topic import Topic, TopicSettings, join
from protocols.admission import MessageAcceptance

NAMES = ("/test/one", "/test/two")


@asynccontextmanager
async def joined(host: Host, taken: list[tuple[str, bytes]]) -> AsyncIterator[dict[str, Topic]]:
    """Join both topics, and note the messages of each."""

    def settings(name: str) -> TopicSettings:
        def validate(forwarder: str, data: bytes, origin: str, handle: object) -> MessageAcceptance:
            taken.append((name, data))
            return MessageAcceptance.ACCEPT

        return TopicSettings(1000, validate)

    async with join(host, {name: settings(name) for name in NAMES}) as topics:
        yield topics


async def test_each_topic_has_its_validator() -> None:
    """A message goes to the validator of its topic, and to no other."""
    taken: list[tuple[str, bytes]] = []
    faults: list[str] = []
    async with open_host(new_key(), (), 8) as here, open_host(new_key(), (), 8) as there:
        here.report_fault = lambda peer, reason: faults.append(reason)
        async with joined(here, taken), joined(there, []) as topics:
            await here.listen(["/ip4/127.0.0.1/tcp/0"])
            assert await there.connect(here.addresses[0].rpartition("/p2p/")[0], here.peer_id)
            with trio.fail_after(20):
                for name in NAMES:
                    while not topics[name].mesh_size():  # noqa: ASYNC110 - the library has no event for it
                        await trio.sleep(0.05)
                    await topics[name].publish(name.encode())
                while len(taken) < len(NAMES):  # noqa: ASYNC110 - the library has no event for it
                    await trio.sleep(0.05)
    assert sorted(taken) == [(name, name.encode()) for name in NAMES]
    assert faults == []


@pytest.mark.parametrize(("messages", "seconds"), [(1, 0.02), (10, 0.2), (500, 1.0)])
async def test_who_is_not_heard_is_read_slowly(messages: int, seconds: float, autojump_clock: object) -> None:
    """A stream is paused for each message that is dropped unheard, up to a second a frame; one that is heard is not."""
    pubsub: Any = SafePubsub.__new__(SafePubsub)
    pubsub._hear = lambda peer: False
    begun = trio.current_time()
    await pubsub._take_messages([rpc_pb2.Message(data=b"x")] * messages, None)
    assert trio.current_time() - begun == pytest.approx(seconds)
