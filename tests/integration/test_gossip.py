"""Real libp2p hosts, each in a process of its own, on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed
from msgspec.structs import replace

from node.gossip.bodies import BODY_PROTOCOL
from node.gossip.book import PeerBook
from node.gossip.catchup import CATCHUP_PROTOCOL
from node.gossip.contacts import PEERS_PROTOCOL, Contacts
from node.gossip.host import Host, open_host
from node.gossip.mesh import Mesh, join
from node.identity import NodeKey, new_key
from node.identity.rsa import RsaIdentity
from protocols.identifiers import body_digest
from protocols.manifest import Limits
from protocols.session import SessionStatement
from protocols.wire import Announcement, BoundAnnouncement, Envelope, encode, signing_hash
from tests.integration.gossip_peer import DOMAIN
from tests.unit.identity.rsa_keys import stored

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).with_name("gossip_peer.py")
SWARM = bytes([7]) * 32
TOPIC = f"/swarm/{SWARM.hex()}/announcements/1"
Event = dict[str, Any]


def peer_key(number: int) -> NodeKey:
    return NodeKey(bytes([number]) * 32)


def seed(round_number: int) -> bytes:
    return round_number.to_bytes(32, "big")


class Process:
    """A `gossip_peer.py` and everything it has said."""

    def __init__(self, inner: trio.Process) -> None:
        self.inner = inner
        self.said: list[Event] = []
        self._news = trio.Event()

    async def listen(self) -> None:
        rest = b""
        assert self.inner.stdout is not None
        async for data in self.inner.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.said += [json.loads(line) for line in lines]
            self._news.set()
            self._news = trio.Event()

    async def do(self, what: str, **fields: Any) -> None:
        assert self.inner.stdin is not None
        await self.inner.stdin.send_all(json.dumps({"do": what} | fields).encode() + b"\n")

    async def until(self, wanted: Callable[[Event], bool], seconds: float = 20.0, since: int = 0) -> Event:
        with trio.fail_after(seconds):
            while True:
                news = self._news
                found = next((event for event in self.said[since:] if wanted(event)), None)
                if found is not None:
                    return found
                await news.wait()

    async def event(self, name: str, seconds: float = 20.0, since: int = 0, **fields: Any) -> Event:
        return await self.until(
            lambda event: event["event"] == name and all(event.get(key) == value for key, value in fields.items()),
            seconds,
            since,
        )

    async def counters(self) -> dict[str, int]:
        mark = len(self.said)
        await self.do("counters")
        counters: dict[str, int] = (await self.event("counters", since=mark))["counters"]
        return counters

    async def counted(self, reason: str, least: int = 1, seconds: float = 10.0) -> int:
        with trio.fail_after(seconds):
            while True:
                count = (await self.counters()).get(reason, 0)
                if count >= least:
                    return count
                await trio.sleep(0.1)

    async def publish(self, **fields: Any) -> str:
        mark = len(self.said)
        await self.do("publish", **fields)
        body: str = (await self.event("publishing", since=mark))["body"]
        return body


class Swarm:
    """Starts processes and kills what is left of them at the end."""

    def __init__(self, nursery: trio.Nursery, home: Path, peers: int) -> None:
        self.nursery, self.home, self.peers = nursery, home, peers
        self.processes: list[Process] = []

    async def start(self, number: int, bootnodes: list[str] | None = None, **settings: Any) -> Process:
        given = {"number": number, "peers": self.peers, "home": str(self.home), "bootnodes": bootnodes or []}
        given |= {"round": 1, "stage": 0} | settings
        inner = await trio.lowlevel.open_process(
            [sys.executable, str(PROGRAM), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.home / f"{number}.log").open("ab"),
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        process = Process(inner)
        self.processes.append(process)
        self.nursery.start_soon(process.listen)
        await process.event("up", 40)
        return process

    async def start_all(self, numbers: range, **settings: Any) -> list[Process]:
        first = await self.start(numbers[0], **settings)
        rest: dict[int, Process] = {}

        async def one(number: int) -> None:
            rest[number] = await self.start(number, addresses(first), **settings)

        async with trio.open_nursery() as nursery:
            for number in numbers[1:]:
                nursery.start_soon(one, number)
        all_of = [first, *(rest[number] for number in numbers[1:])]
        for process in all_of:
            await process.until(lambda event: event["event"] == "NetworkChanged" and event["connected"] >= 1, 30)
        return all_of


def addresses(process: Process) -> list[str]:
    found: list[str] = next(event["addresses"] for event in process.said if event["event"] == "up")
    return found


async def known_to(book: Path, process: Process) -> None:
    """Wait until a peer book holds the address of a process."""
    address = addresses(process)[0].split("/p2p/")[0]
    with trio.fail_after(15):
        while not _holds(book, address):  # noqa: ASYNC110 - another process writes it
            await trio.sleep(0.2)


def _holds(book: Path, address: str) -> bool:
    return book.exists() and address in book.read_text()


@asynccontextmanager
async def swarm_of(home: Path, peers: int) -> AsyncIterator[Swarm]:
    async with trio.open_nursery() as nursery:
        swarm = Swarm(nursery, home, peers)
        try:
            yield swarm
        finally:
            for process in swarm.processes:
                if process.inner.returncode is None:
                    process.inner.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                for process in swarm.processes:
                    await process.inner.wait()
            nursery.cancel_scope.cancel()


async def test_four_nodes_share_announcements_and_bodies(tmp_path: Path) -> None:
    """Small bodies arrive inside the announcement, large by stream, bad ones are refused, late joiners catch up."""
    async with swarm_of(tmp_path, 5) as swarm:
        nodes = await swarm.start_all(range(1, 5))
        small = await nodes[0].publish(size=4_000)
        large = await nodes[1].publish(size=3_000_000)
        bad = await nodes[2].publish(body="bad body")
        for node in (nodes[1], nodes[2], nodes[3]):
            arrived = await node.event("RolloutsArrived", body=small)
            assert (arrived["peer"], arrived["groups"]) == (peer_key(1).address, 1)
        for node in (nodes[0], nodes[2], nodes[3]):
            await node.event("RolloutsArrived", body=large)
        for node in (nodes[0], nodes[1], nodes[3]):
            assert (await node.event("RolloutsRefused", body=bad))["reason"] == "rubbish"
        late = await swarm.start(5, addresses(nodes[3]))
        for body in (small, large):
            await late.event("RolloutsArrived", body=body)


async def test_a_twin_is_heard(tmp_path: Path) -> None:
    """A second node with the key of the first, under a made-up name, hears what the first has said and what it says.

    The first one is not disturbed. When it is gone the second takes its place, and is found under its own name.
    """
    async with swarm_of(tmp_path, 2) as swarm:
        first, between = await swarm.start_all(range(1, 3))
        early = await first.publish(size=4_000)
        await between.event("RolloutsArrived", body=early)
        (tmp_path / "twin").mkdir()
        twin = await swarm.start(1, addresses(between), home=str(tmp_path / "twin"), incognito=True)
        await twin.event("OwnMessageHeard", body=early)
        for process in (first, between, twin):
            await process.do("window", round=2, stage=0)
        late = await first.publish(size=4_000, round=2)
        await between.event("RolloutsArrived", body=late)
        assert (await twin.event("OwnMessageHeard", body=late))["round"] == 2
        first.inner.send_signal(signal.SIGKILL)
        await first.inner.wait()
        await twin.do("show")
        for process in (between, twin):
            await process.do("window", round=3, stage=0)
        own = await twin.publish(size=4_000, round=3)
        assert (await between.event("RolloutsArrived", body=own))["peer"] == peer_key(1).address


async def test_messages_travel_and_a_newcomer_is_heard(tmp_path: Path) -> None:
    """What a node carries comes with its announcement, without any rollouts, and to a late joiner too. Somebody who is
    not registered shows its delegation to everybody, once a minute, and no longer when it is."""
    async with swarm_of(tmp_path, 2) as swarm:
        nodes = await swarm.start_all(range(1, 4))
        await nodes[0].do("carry")
        heard = await nodes[1].event("RolloutsAnnounced", peer=peer_key(1).address)
        assert (heard["size"], heard["relays"], heard["carried"][0][:2]) == (0, True, ["commit", 1])
        await nodes[2].do("introduce")
        for node in nodes[:2]:
            introduced = await node.event("NodeIntroduced")
            assert introduced["node"] == peer_key(3).address == introduced["message"][2]
        late = await swarm.start(4, addresses(nodes[0]), peers=3)
        assert (await late.event("RolloutsAnnounced"))["carried"] == heard["carried"]
        assert (await late.event("NodeIntroduced"))["node"] == peer_key(3).address
        assert [await node.counted("introduction") for node in nodes[:2]] == [1, 1]


async def test_a_body_is_had_from_whoever_has_it(tmp_path: Path) -> None:
    """When the announcer is gone its large body is fetched from a peer that has validated it."""
    async with swarm_of(tmp_path, 3) as swarm:
        announcer, keeper = await swarm.start_all(range(1, 3))
        body = await announcer.publish(size=500_000)
        await keeper.event("RolloutsArrived", body=body)
        announcer.inner.send_signal(signal.SIGKILL)
        late = await swarm.start(3, addresses(keeper))
        await late.event("RolloutsArrived", body=body)


async def test_the_next_stage_is_held_and_the_last_round_accepted(tmp_path: Path) -> None:
    """A node whose window is behind takes an early announcement in when it moves; the last round's still count."""
    async with swarm_of(tmp_path, 3) as swarm:
        nodes = await swarm.start_all(range(1, 4))
        await nodes[0].do("window", round=1, stage=1)
        early = await nodes[0].publish(body="early")
        await nodes[1].counted("next")
        assert not any(event["event"] == "RolloutsAnnounced" for event in nodes[1].said)
        for node in nodes[1:]:
            await node.do("window", round=1, stage=1)
        for node in nodes[1:]:
            await node.event("RolloutsArrived", body=early)
        for node in nodes:
            await node.do("window", round=2, stage=0)
        last = await nodes[2].publish(body="last round", round=1, stage=0)
        await nodes[0].event("RolloutsArrived", body=last, round=1)


async def test_peers_find_each_other_through_a_bootnode(tmp_path: Path) -> None:
    """Nodes that know a bootnode only get connected to each other, and write each other into their books."""
    async with swarm_of(tmp_path, 3) as swarm:
        boot = await swarm.start(9, bootnode=True)
        nodes = [await swarm.start(number, addresses(boot)) for number in (1, 2, 3)]
        for node in nodes:
            await node.event("NetworkChanged", connected=2)
        body = await nodes[2].publish(body="hello")
        await nodes[0].event("RolloutsArrived", body=body)
        await known_to(tmp_path / "peers-1.json", nodes[1])


async def test_a_killed_peer_comes_back(tmp_path: Path) -> None:
    """After kill -9 the others go on; the same identity on the same port is found again without any help, and what it
    announces again is harmless."""
    async with swarm_of(tmp_path, 3) as swarm:
        nodes = await swarm.start_all(range(1, 4))
        before = await nodes[2].publish(body="before")
        await nodes[0].event("RolloutsArrived", body=before)
        await known_to(tmp_path / "peers-1.json", nodes[2])
        port = addresses(nodes[2])[0].split("/p2p/")[0]
        mark = len(nodes[0].said)
        nodes[2].inner.send_signal(signal.SIGKILL)
        await nodes[0].event("NetworkChanged", since=mark, connected=1)
        between = await nodes[1].publish(body="between")
        await nodes[0].event("RolloutsArrived", body=between)
        again = await swarm.start(3, listen=port)
        await again.event("RolloutsArrived", body=between)
        await again.publish(body="before")
        await nodes[0].counted("duplicate", seconds=20)
        assert sum(event["event"] == "RolloutsAnnounced" and event["body"] == before for event in nodes[0].said) == 1
        after = await nodes[0].publish(body="after")
        await again.event("RolloutsArrived", body=after)


async def test_a_frozen_peer_is_cut(tmp_path: Path) -> None:
    """A stopped process is noticed by pings and cut below the library; thawed, it joins again."""
    async with swarm_of(tmp_path, 3) as swarm:
        nodes = await swarm.start_all(range(1, 4))
        await nodes[0].event("NetworkChanged", connected=2)
        mark = len(nodes[0].said)
        os.kill(nodes[2].inner.pid, signal.SIGSTOP)
        await nodes[0].event("NetworkChanged", seconds=30, since=mark, connected=1)
        body = await nodes[1].publish(body="while frozen")
        await nodes[0].event("RolloutsArrived", body=body)
        os.kill(nodes[2].inner.pid, signal.SIGCONT)
        await nodes[2].event("RolloutsArrived", seconds=40, body=body)


async def test_a_restarted_service_is_found_again(tmp_path: Path) -> None:
    """A service that is ended and run again in the same process keeps its port, its peers and what it announced."""
    async with swarm_of(tmp_path, 3) as swarm:
        nodes = await swarm.start_all(range(1, 4))
        body = await nodes[0].publish(body="before the restart")
        await nodes[1].event("RolloutsArrived", body=body)
        mark = len(nodes[0].said)
        await nodes[0].do("restart")
        await nodes[0].event("NetworkChanged", since=mark, connected=2)
        up = await nodes[0].event("up", since=mark)
        assert up["addresses"] == addresses(nodes[0])
        again = await nodes[1].publish(size=50_000)
        await nodes[0].event("RolloutsArrived", body=again)


# --- a hostile peer -----------------------------------------------------------------------------------------------


class Hostile:
    """A peer that speaks libp2p and says what it likes."""

    def __init__(self, host: Host, mesh: Mesh, victim: str) -> None:
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
        with trio.move_on_after(3):
            async with self.host.request(self.victim, protocol) as stream:
                await stream.write(data)
                await trio.sleep(0.2)


@asynccontextmanager
async def hostile(number: int, victim: Process, rsa: RsaIdentity | None = None) -> AsyncIterator[Hostile]:
    transport, _, peer = addresses(victim)[0].rpartition("/p2p/")
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(open_host(rsa or peer_key(number), (), 8))
        mesh = await stack.enter_async_context(join(host, TOPIC, 1 << 22, lambda *_: "drop"))
        assert await host.connect(transport, peer)
        with trio.fail_after(10):
            while mesh.neighbours() == 0:  # noqa: ASYNC110 - the library has no event for it
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
            await victim.counted("early")
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
            rubbish = announcement(peer_key(22), round=5, seed=seed(5))
            for _ in range(600):
                await peer.say(rubbish)
                await trio.sleep(0.004)
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
        blamed: Counter[str] = Counter()
        host.blame = lambda peer, reason: blamed.update((reason,))
        contacts = Contacts(host, PeerBook(None), bootnodes=_none, max_peers=64, ping_seconds=30.0)
        others = [await stack.enter_async_context(open_host(new_key(), (), 8)) for _ in range(12)]
        transport, _, peer = host.addresses[0].rpartition("/p2p/")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(contacts.run)
            first: list[str] = []
            for number, other in enumerate(others, 1):
                await other.connect(transport, peer)
                if number == 8:
                    await until(lambda: len(contacts._watched) == 8)
                    first = sorted(host.connected())
            await until(lambda: blamed["crowded"] >= 4 and sorted(host.connected()) == first)
            nursery.cancel_scope.cancel()
        assert len(first) == 8


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110 - the other side is a library
            await trio.sleep(0.1)


async def _none() -> tuple[str, ...]:
    return ()
