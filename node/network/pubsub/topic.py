"""GossipSub on one topic over a host: publish, forward, and who listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service import background_trio_service

from node.network.host import Host
from node.network.pubsub.hardened import Judgement, SafeGossipSub, SafePubsub

Admit = Callable[[str, int, int], bool]
"""Tells whether a frame of so many messages and bytes from a peer is taken."""
JudgeMessage = Callable[[str, bytes, str, Any], Judgement]
"""Judge (forwarder, data, origin, carrier): peers by id, `carrier` is what `AnnouncementTopic.forward` takes."""


class AnnouncementTopic:
    """A joined topic."""

    def __init__(self, host: Host, topic: str, data_limit: int, judge: JudgeMessage, admit: Admit) -> None:
        self._topic, self._limit = topic, data_limit

        def judge_message(forwarder: ID, message: rpc_pb2.Message) -> Judgement:
            return judge(str(forwarder), message.data, str(ID(message.from_id)), (forwarder, message))

        def blame(peer: ID, reason: str) -> None:
            host.blame(str(peer), reason)

        self.router = _router()
        self.router.overflow = lambda peer: host.blame(str(peer), "slow")
        self.pubsub = SafePubsub(host.inner, self.router, topic, data_limit, judge_message, blame)
        self.pubsub.admit = lambda peer, messages, size: admit(str(peer), messages, size)

    def subscribers(self) -> set[str]:
        """Return the connected peers that listen to the topic."""
        return {str(peer) for peer in self.pubsub.peer_topics.get(self._topic, ()) if peer in self.pubsub.peers}

    def neighbours(self) -> int:
        """Return the number of peers that a message would be sent to at once."""
        return len(self.router.mesh.get(self._topic, ()))

    async def publish(self, data: bytes) -> None:
        """Send a message of this node. Raises ValueError above the limit: the library would drop it in silence."""
        if len(data) > self._limit:
            raise ValueError(f"a message of {len(data)} bytes exceeds the limit of {self._limit}")
        await self.pubsub.publish(self._topic, data)

    async def forward(self, carrier: Any) -> None:
        """Send on a message that was held when it came."""
        forwarder, message = carrier
        await self.pubsub.forward(forwarder, message)


@asynccontextmanager
async def join(
    host: Host, topic: str, data_limit: int, judge: JudgeMessage, admit: Admit = lambda peer, messages, size: True
) -> AsyncIterator[AnnouncementTopic]:
    """Run Pubsub and router on a host that does not listen yet, and join the topic."""
    mesh = AnnouncementTopic(host, topic, data_limit, judge, admit)
    async with background_trio_service(mesh.pubsub), background_trio_service(mesh.router):
        await mesh.pubsub.wait_until_ready()
        subscription = await mesh.pubsub.subscribe(topic)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, subscription)
            yield mesh
            nursery.cancel_scope.cancel()


async def _drain(subscription: Any) -> None:
    """Messages are taken in when they are judged; the library's copy must not pile up."""
    while True:
        await subscription.get()


def _router() -> SafeGossipSub:
    """Every parameter is explicit: the defaults have a heartbeat of 120 s and drop our own messages as spam."""
    return SafeGossipSub(
        protocols=[TProtocol("/meshsub/1.2.0"), TProtocol("/meshsub/1.1.0")],
        degree=6,
        degree_low=4,
        degree_high=12,
        time_to_live=60,
        gossip_window=3,
        gossip_history=6,
        heartbeat_initial_delay=0.1,
        heartbeat_interval=1,
        prune_back_off=15,
        unsubscribe_back_off=10,
        do_px=False,
        max_idontwant_messages=1000,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
    )
