"""What a hostile peer says to real libp2p hosts, and what comes of it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed
from msgspec.structs import replace

from node.identity import NodeKey, new_key
from node.identity.rsa import RsaIdentity
from node.network.host import Host, open_host
from node.network.peers.peer_manager import PEERS_PROTOCOL, PeerManager
from node.network.peers.peer_store import PeerStore
from node.network.pubsub.topic import Topic, TopicSettings, join
from node.network.reputation import IP_COLOCATION
from node.network.reqresp.body_exchange import BODY_PROTOCOL
from node.network.reqresp.catch_up import CATCHUP_PROTOCOL
from node.network.reqresp.streams import StreamLostError
from protocols.admission import MessageAcceptance
from protocols.identifiers import body_digest
from protocols.manifest import Limits
from protocols.session import SessionStatement
from protocols.wire import Announcement, BoundAnnouncement, Envelope, encode, signing_hash
from tests.integration.gossip_peer import DOMAIN
from tests.integration.gossip_processes import SWARM, TOPIC, Process, addresses, known_to, peer_key, seed, swarm_of
from tests.support.rsa_keys import stored

pytestmark = pytest.mark.integration


class Hostile:
    """A peer that speaks libp2p and says what it likes."""

    def __init__(self, host: Host, mesh: Topic, victim: str) -> None:
        self.host, self.mesh, self.victim = host, mesh, victim

    async def say(self, data: bytes, topic: str = TOPIC) -> None:
        """Publish under a correct libp2p signature."""
        await self.mesh.pubsub.publish(topic, data)

    async def frame(self, frame: bytes) -> None:
        """Write raw bytes on a gossip stream of its own."""
        await self.raw("/meshsub/1.1.0", frame)

    async def rpc(self, rpc: rpc_pb2.RPC) -> None:
        await self.frame(encode_varint_prefixed(rpc.SerializeToString()))

    async def raw(self, protocol: str, data: bytes) -> None:
        with trio.move_on_after(3), suppress(StreamLostError):
            async with self.host.request(self.victim, protocol) as stream:
                await stream.write(data)
                await trio.sleep(0.2)


@asynccontextmanager
async def hostile(number: int, victim: Process, rsa: RsaIdentity | None = None) -> AsyncIterator[Hostile]:
    transport, _, peer = addresses(victim)[0].rpartition("/p2p/")
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(open_host(rsa or peer_key(number), (), 8))
        ignored = TopicSettings(1 << 22, lambda *_: MessageAcceptance.IGNORE)
        mesh = (await stack.enter_async_context(join(host, {TOPIC: ignored})))[TOPIC]
        assert await host.connect(transport, peer)
        with trio.fail_after(10):
            while mesh.mesh_size() == 0:  # noqa: ASYNC110 - the library has no event for it
                await trio.sleep(0.05)
        yield Hostile(host, mesh, peer)


def announcement(key: NodeKey, **changes: Any) -> bytes:
    body = changes.pop("content", b"hostile")
    said = {
        "version": 1, "swarm": SWARM, "round": 1, "stage": 0, "seed": seed(1),
        "body": body_digest(body), "size": len(body), "inline": body,
    } | changes  # fmt: skip
    payload = encode(BoundAnnouncement(**said) if "session" in said else Announcement(**said))
    return encode(Envelope(payload, key.sign(signing_hash(payload))))


async def test_a_hostile_peer_breaks_nothing(tmp_path: Path) -> None:
    """Garbage frames and messages of every kind are dropped and counted; between and after them traffic goes on."""
    async with swarm_of(tmp_path, 4) as swarm:
        nodes = await swarm.start_all(range(1, 4), round=5)
        victim = nodes[0]
        async with hostile(4, victim) as peer:
            key = peer_key(4)
            await peer.say(announcement(peer_key(50), round=5, seed=seed(5)))
            await victim.counted("signature")
            await peer.say(announcement(key, round=2, seed=seed(2)))
            await victim.counted("round")
            await peer.say(announcement(key, round=9, seed=seed(9)))
            await victim.counted("future")
            await peer.say(announcement(key, round=5, seed=seed(9)))
            await victim.counted("seed")
            await peer.say(announcement(key, round=5, stage=9, seed=seed(5)))
            await victim.counted("stage")
            await peer.say(announcement(key, round=5, seed=seed(5), version=9))
            await victim.counted("version")
            once = announcement(key, round=5, seed=seed(5))
            await peer.say(once)
            await victim.event("RolloutsArrived", peer=key.address)
            await peer.say(once)
            await victim.counted("duplicate")
            await peer.say(announcement(key, round=5, seed=seed(5), content=b"another"))
            await victim.counted("equivocation")
            await peer.say(b"\xff garbage \x00" * 9)
            await victim.counted("schema")
            await peer.say(announcement(key, round=5, seed=seed(5), swarm=bytes(32)))
            await victim.counted("swarm")
            await peer.say(announcement(key, round=5, seed=seed(5), inline=b"hostilf"))
            await victim.counted("digest")
            await peer.say(bytes(Limits().announcement + 1))
            await victim.counted("size")
        async with hostile(20, victim) as peer:
            await peer.say(announcement(peer_key(20), round=5, seed=seed(5)))
            await victim.counted("unregistered")
            await peer.frame(encode_varint_prefixed(b"\xff" * 50))
            await victim.counted("frame")
        async with hostile(21, victim) as peer:
            await peer.frame(b"\xff\xff\xff\xff\x7f" + b"x" * 100)
            await victim.counted("frame-size")
        async with hostile(22, victim) as peer:
            for number in range(40):
                await peer.say(announcement(key, round=4, seed=seed(4), content=b"%d" % number))
            await victim.counted("flood", 10)
            await trio.sleep(1)
            assert peer.victim not in peer.host.connected()
        body = await nodes[1].publish(size=2_000)
        await victim.event("RolloutsArrived", body=body)
        assert all(process.inner.returncode is None for process in nodes)


async def test_hostile_frames_and_streams_break_nothing(tmp_path: Path) -> None:
    """Unsigned, forged and odd RPCs, rubbish on every stream protocol and on the bare socket: traffic goes on."""
    async with swarm_of(tmp_path, 3) as swarm:
        nodes = await swarm.start_all(range(1, 4))
        victim = nodes[0]
        for number, rpc in enumerate(odd_rpcs(), start=30):
            async with hostile(number, victim) as peer:
                await peer.rpc(rpc)
        assert await victim.counted("unsigned") >= 3
        async with hostile(60, victim) as peer:
            for protocol in (
                BODY_PROTOCOL,
                CATCHUP_PROTOCOL,
                PEERS_PROTOCOL,
                "/ipfs/ping/1.0.0",
                "/ipfs/id/push/1.0.0",
            ):
                for data in (b"", b"\xff" * 4, b"\0\0\0\x05abc", b"\0\0\0\x04\xc1\xc1\xc1\xc1", os.urandom(300)):
                    await peer.raw(protocol, data)
        await victim.counted("stream-size")
        host, port = addresses(victim)[0].split("/")[2], int(addresses(victim)[0].split("/")[4])
        for number in range(40):
            stream = await trio.open_tcp_stream(host, port)
            await stream.send_all(os.urandom(500) if number % 2 else b"\x13/multistream/1.0.0\n" + os.urandom(200))
            await stream.aclose()
        body = await nodes[1].publish(size=200_000)
        await victim.event("RolloutsArrived", body=body)
        back = await victim.publish(size=2_000)
        await nodes[2].event("RolloutsArrived", body=back)


async def test_an_rsa_peer_keeps_its_id(tmp_path: Path) -> None:
    """Between two ordinary nodes it has its old peer id, it introduces itself, and its announcement counts, for one
    that learns it from others too. What is bound by another key, for another chain or for another session is dropped.
    """
    rsa, other = RsaIdentity(stored()), RsaIdentity(stored())
    async with swarm_of(tmp_path, 5) as swarm:
        nodes = await swarm.start_all(range(1, 3))
        old = await swarm.start(3, addresses(nodes[0]), rsa=rsa.stored.hex())
        assert addresses(old)[0].endswith(f"/p2p/{rsa.peer_id}")
        body = await old.publish(size=20_000)
        for node in nodes:
            assert (await node.event("RolloutsArrived", body=body))["peer"] == peer_key(3).address
        await old.do("introduce")
        await nodes[0].event("NodeIntroduced", node=peer_key(3).address)
        back = await nodes[1].publish(size=20_000)
        await old.event("RolloutsArrived", body=back)
        await known_to(tmp_path / "peers-1.json", old)
        old.inner.send_signal(signal.SIGKILL)
        await old.inner.wait()
        assert rsa.peer_id in (tmp_path / "peers-1.json").read_text()
        late = await swarm.start(4, addresses(nodes[1]))
        await late.event("RolloutsArrived", body=body, peer=peer_key(3).address)
        key = peer_key(5)
        async with hostile(5, nodes[0], other) as peer:
            bound = other.bind(DOMAIN, key.address)
            wrong = (
                SessionStatement(rsa.public_key, bound.signature),
                other.bind(replace(DOMAIN, chain_id=2), key.address),
                other.bind(DOMAIN, peer_key(4).address),
            )
            for count, session in enumerate(wrong, start=1):
                await peer.say(announcement(key, session=session))
                await nodes[0].counted("session", count)
            await peer.say(announcement(key, session=bound))
            await nodes[0].event("RolloutsArrived", peer=key.address)


async def test_plain_text_is_refused(tmp_path: Path) -> None:
    """A dialler that proposes anything but noise is turned away: without it anybody could claim any peer id."""
    async with swarm_of(tmp_path, 1) as swarm:
        victim = await swarm.start(1)
        host, port = addresses(victim)[0].split("/")[2], int(addresses(victim)[0].split("/")[4])
        for protocol, answer in (
            (b"/plaintext/2.0.0\n", b"na\n"),
            (b"/tls/1.0.0\n", b"na\n"),
            (b"/noise\n", b"/noise\n"),
        ):
            stream = await trio.open_tcp_stream(host, port)
            hello = b"/multistream/1.0.0\n"
            await stream.send_all(bytes([len(hello)]) + hello + bytes([len(protocol)]) + protocol)
            said = b""
            with trio.move_on_after(2):
                while len(said) < 1 + len(hello) + 1 + len(answer):
                    said += await stream.receive_some(100)
            await stream.aclose()
            assert said == bytes([len(hello)]) + hello + bytes([len(answer)]) + answer


def odd_rpcs() -> list[rpc_pb2.RPC]:
    """Return RPCs that are valid protobuf and nothing else."""
    own = peer_key(1)
    author = b"\x00%" + b"\x08\x02\x12!" + bytes([2 + (own.public_key[-1] & 1)]) + own.public_key[:32]
    control = [rpc_pb2.RPC() for _ in range(5)]
    control[0].control.graft.add(topicID="nope")
    control[1].control.prune.add(topicID=TOPIC, backoff=2**63)
    control[2].control.ihave.add(topicID=TOPIC, messageIDs=[b"abc", b"", os.urandom(9000)])
    control[3].control.iwant.add(messageIDs=[os.urandom(30) for _ in range(3000)])
    for number in range(6000):
        control[4].subscriptions.add(subscribe=True, topicid=f"z{number}")
    message = rpc_pb2.Message
    return [
        rpc_pb2.RPC(publish=[message(data=b"x", topicIDs=[TOPIC], seqno=b"1", signature=b"s")]),
        rpc_pb2.RPC(publish=[message(data=b"x", topicIDs=[TOPIC], from_id=author + b"", seqno=b"2")]),
        rpc_pb2.RPC(
            publish=[message(data=b"x", topicIDs=[TOPIC], from_id=b"\x12\x20" + bytes(32), seqno=b"3", signature=b"s",
                             key=b"\x08\x63garbage")]
        ),
        rpc_pb2.RPC(publish=[message(data=b"x", topicIDs=[TOPIC], from_id=b"", seqno=b"4", signature=b"s" * 64)]),
        rpc_pb2.RPC(publish=[message(data=b"x", topicIDs=["other", TOPIC], from_id=author, seqno=b"5")]),
        rpc_pb2.RPC(senderRecord=b"junk"),
        *control,
    ]  # fmt: skip


async def test_many_identities_on_one_address_are_few_neighbours(tmp_path: Path) -> None:
    """Twelve names on one address that is not trusted get eight connections; those that came first keep theirs."""
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(open_host(new_key(), (), 64))
        await host.listen(("/ip4/127.0.0.1/tcp/0",))
        faults: Counter[str] = Counter()
        host.report_fault = lambda peer, reason: faults.update((reason,))
        peer_manager = PeerManager(host, PeerStore(None), bootnodes=_none, max_peers=64, ping_seconds=30.0)
        others = [await stack.enter_async_context(open_host(new_key(), (), 8)) for _ in range(12)]
        transport, _, peer = host.addresses[0].rpartition("/p2p/")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer_manager.run)
            first: list[str] = []
            for number, other in enumerate(others, 1):
                await other.connect(transport, peer)
                if number == 8:
                    await until(lambda: len(peer_manager._watched) == 8)
                    first = sorted(host.connected())
            await until(lambda: faults[IP_COLOCATION] >= 4 and sorted(host.connected()) == first)
            nursery.cancel_scope.cancel()
        assert len(first) == 8


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110 - the other side is a library
            await trio.sleep(0.1)


async def _none() -> tuple[str, ...]:
    return ()
