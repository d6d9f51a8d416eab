"""Real libp2p hosts, each in a process of its own, on loopback."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.gossip_processes import addresses, known_to, peer_key, swarm_of

pytestmark = pytest.mark.integration


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


async def test_a_second_node_with_the_same_key_is_heard(tmp_path: Path) -> None:
    """A second node with the key of the first, under an ephemeral peer id, hears what the first has announced
    before and what it announces then.

    The first one is not disturbed. When it is gone the second takes its place, and is found under its own name.
    """
    async with swarm_of(tmp_path, 2) as swarm:
        first, between = await swarm.start_all(range(1, 3))
        early = await first.publish(size=4_000)
        await between.event("RolloutsArrived", body=early)
        (tmp_path / "twin").mkdir()
        twin = await swarm.start(1, addresses(between), home=str(tmp_path / "twin"), ephemeral_peer_id=True)
        await twin.event("DoppelgangerDetected", body=early)
        for process in (first, between, twin):
            await process.do("window", round=2, stage=0)
        late = await first.publish(size=4_000, round=2)
        await between.event("RolloutsArrived", body=late)
        assert (await twin.event("DoppelgangerDetected", body=late))["round"] == 2
        first.inner.send_signal(signal.SIGKILL)
        await first.inner.wait()
        await twin.do("switch")
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
        assert (heard["size"], heard["relays"], heard["attached"][0][:2]) == (0, True, ["commit", 1])
        await nodes[2].do("introduce")
        for node in nodes[:2]:
            introduced = await node.event("NodeIntroduced")
            assert introduced["node"] == peer_key(3).address == introduced["message"][2]
        late = await swarm.start(4, addresses(nodes[0]), peers=3)
        assert (await late.event("RolloutsAnnounced"))["attached"] == heard["attached"]
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
        await nodes[1].counted("early")
        assert not any(event["event"] == "RolloutsAnnounced" for event in nodes[1].events)
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
        mark = len(nodes[0].events)
        nodes[2].inner.send_signal(signal.SIGKILL)
        await nodes[0].event("NetworkChanged", since=mark, connected=1)
        between = await nodes[1].publish(body="between")
        await nodes[0].event("RolloutsArrived", body=between)
        again = await swarm.start(3, listen=port)
        await again.event("RolloutsArrived", body=between)
        await again.publish(body="before")
        await nodes[0].counted("duplicate", seconds=20)
        assert sum(event["event"] == "RolloutsAnnounced" and event["body"] == before for event in nodes[0].events) == 1
        after = await nodes[0].publish(body="after")
        await again.event("RolloutsArrived", body=after)


async def test_a_frozen_peer_is_cut(tmp_path: Path) -> None:
    """A stopped process is noticed by pings and cut below the library; thawed, it joins again."""
    async with swarm_of(tmp_path, 3) as swarm:
        nodes = await swarm.start_all(range(1, 4))
        await nodes[0].event("NetworkChanged", connected=2)
        mark = len(nodes[0].events)
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
        mark = len(nodes[0].events)
        await nodes[0].do("restart")
        await nodes[0].event("NetworkChanged", since=mark, connected=2)
        up = await nodes[0].event("up", since=mark)
        assert up["addresses"] == addresses(nodes[0])
        again = await nodes[1].publish(size=50_000)
        await nodes[0].event("RolloutsArrived", body=again)
