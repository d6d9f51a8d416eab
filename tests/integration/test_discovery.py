"""Real hosts that join one after another find each other as a random graph."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import trio
from trio_typing import TaskStatus

import node.network.peers.peer_manager as module
from node.identity import NodeKey
from node.network.host import Host, open_host
from node.network.peers.addresses import networks
from node.network.peers.peer_manager import PeerManager
from node.network.peers.peer_store import PeerStore
from tests.unit.network.peers.graphs import mean_path, random_graph

pytestmark = pytest.mark.integration

HOSTS, TARGET, TOLD, PLACES = 40, 4, 8, 16
"""A small network with as few connections as that: the last 8 that a bootnode has met would be a ribbon."""
ANY_PORT = ("/ip4/127.0.0.1/tcp/0",)


async def run_host(
    number: int,
    bootnodes: Sequence[str],
    target: int,
    places: int,
    task_status: TaskStatus[Host] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a host with its peer manager until cancelled."""

    async def named() -> Sequence[str]:
        return bootnodes

    async with open_host(NodeKey(number.to_bytes(32, "big")), (), places) as host:
        manager = PeerManager(
            host,
            PeerStore(None),
            bootnodes=named,
            max_peers=places,
            ping_seconds=60.0,
            target_peers=target,
            trusted=networks(("127.0.0.0/8",)),
        )
        await host.listen(ANY_PORT)
        task_status.started(host)
        await manager.run()


async def test_forty_hosts_that_join_in_turn_are_a_random_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean path between them is at most a tenth longer than in a random graph of as many edges."""
    monkeypatch.setattr(module, "MAX_PEERS_SHARED", TOLD)
    async with trio.open_nursery() as nursery:
        bootnode: Host = await nursery.start(run_host, 1_000, (), 0, HOSTS + 8)
        hosts: list[Host] = []
        for number in range(1, HOSTS + 1):
            hosts.append(await nursery.start(run_host, number, bootnode.announced, TARGET, PLACES))
            await trio.sleep(0.1)
        numbers = {host.peer_id: at for at, host in enumerate(hosts)}
        with trio.fail_after(60):
            while min(len(host.connected()) for host in hosts) < TARGET:  # noqa: ASYNC110 - the library has no event
                await trio.sleep(0.2)
        graph = [{numbers[peer] for peer in host.connected() if peer in numbers} for host in hosts]
        nursery.cancel_scope.cancel()
    edges = sum(map(len, graph)) // 2
    same = [random_graph(HOSTS, edges, Random(seed)) for seed in range(20)]
    expected = sum(mean_path(each, range(HOSTS)) for each in same) / len(same)
    assert mean_path(graph, range(HOSTS)) <= 1.1 * expected
