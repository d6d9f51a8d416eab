"""GossipSub over a host: joined topics, to which messages are published and forwarded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service import background_trio_service

from node.network.host import Host
from node.network.pubsub.pubsub import SafePubsub, TopicRule
from node.network.pubsub.router import SafeGossipSub, new_router
from node.network.reputation import SLOW_PEER
from protocols.admission import MessageAcceptance

TopicValidator = Callable[[str, bytes, str, object], MessageAcceptance]
"""Validates a message: called with forwarder and origin by peer id, and a handle that `Topic.forward` takes."""


class Traffic(NamedTuple):
    """The rate limiter: `allow` is called with a peer and a frame's bytes, `hear` with a peer that forwards a message.
    What they return False for is dropped."""

    allow: Callable[[str, int], bool]
    hear: Callable[[str], bool]


UNLIMITED = Traffic(lambda peer, size: True, lambda peer: True)


class TopicSettings(NamedTuple):
    """What a topic's messages must keep to: their limit in bytes, and the topic's validator."""

    data_limit: int
    validate: TopicValidator


class MessageHandle(NamedTuple):
    """A message that may be forwarded later, and who forwarded it to this node."""

    forwarder: ID
    message: rpc_pb2.Message


class Topic:
    """A joined topic."""

    def __init__(self, pubsub: SafePubsub, name: str, data_limit: int) -> None:
        self.pubsub, self.name, self._limit = pubsub, name, data_limit

    def subscribers(self) -> set[str]:
        """Return the connected peers that subscribe to the topic."""
        return {str(peer) for peer in self.pubsub.peer_topics.get(self.name, ()) if peer in self.pubsub.peers}

    def mesh_size(self) -> int:
        """Return the number of peers in the topic's mesh, to which messages are sent at once."""
        return len(self.pubsub.router.mesh.get(self.name, ()))

    async def publish(self, data: bytes) -> None:
        """Send a message of this node. Raises ValueError above the limit: the library would drop it silently."""
        if len(data) > self._limit:
            raise ValueError(f"a message of {len(data)} bytes exceeds the limit of {self._limit}")
        await self.pubsub.publish(self.name, data)

    async def forward(self, handle: object) -> None:
        """Forward a message that was not accepted when it came, by the handle that the validator got."""
        assert isinstance(handle, MessageHandle)
        await self.pubsub.forward(handle.forwarder, handle.message)


@asynccontextmanager
async def join(
    host: Host, topics: Mapping[str, TopicSettings], traffic: Traffic = UNLIMITED
) -> AsyncIterator[dict[str, Topic]]:
    """Run Pubsub and router on a host that does not listen yet, join the topics and yield them by name."""
    router = new_router()
    pubsub = _pubsub(host, router, topics, traffic)
    async with background_trio_service(pubsub), background_trio_service(router):
        await pubsub.wait_until_ready()
        async with trio.open_nursery() as nursery:
            for name in topics:
                nursery.start_soon(_drain, await pubsub.subscribe(name))
            yield {name: Topic(pubsub, name, settings.data_limit) for name, settings in topics.items()}
            nursery.cancel_scope.cancel()


def _pubsub(host: Host, router: SafeGossipSub, topics: Mapping[str, TopicSettings], traffic: Traffic) -> SafePubsub:
    def report_fault(peer: ID, reason: str) -> None:
        host.report_fault(str(peer), reason)

    router.on_queue_full = lambda peer: report_fault(peer, SLOW_PEER)
    rules = {name: TopicRule(settings.data_limit, _validator(settings.validate)) for name, settings in topics.items()}
    return SafePubsub(
        host.inner,
        router,
        rules,
        report_fault,
        lambda peer, size: traffic.allow(str(peer), size),
        lambda peer: traffic.hear(str(peer)),
    )


def _validator(validate: TopicValidator) -> Callable[[ID, rpc_pb2.Message], MessageAcceptance]:
    def validate_message(forwarder: ID, message: rpc_pb2.Message) -> MessageAcceptance:
        origin = str(ID(message.from_id))
        return validate(str(forwarder), message.data, origin, MessageHandle(forwarder, message))

    return validate_message


async def _drain(subscription: Any) -> None:
    """Empty the library's queue: messages are taken in by the validator."""
    while True:
        await subscription.get()
