"""Gossip among 20 nodes on this machine, each a process: one 32 KB announcement a second, then one of each at once."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
import trio

from node.config import GossipSettings
from node.identity import NodeKey
from node.identity.local_peer import local_peer
from node.machine.commands import PublishRollouts
from node.machine.inputs import AnyInput, NetworkChanged, RolloutsAnnounced
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.service import Libp2pNetwork
from node.ports.bodies import Verdict
from node.ports.network import RoundWindow
from protocols.identifiers import Digest, body_digest
from protocols.manifest import Limits
from protocols.typed_data import Domain

NODES, BODY_BYTES = 20, 32_000
STEADY_MESSAGES, LATE, BURST_SECONDS = 20, 2.0, 8.0
ENOUGH_PEERS, SETTLE_SECONDS, JOIN_SECONDS = 4, 3.0, 25.0
GOAL = 0.99
LIMITS = Limits(inline=40_000)
DOMAIN = Domain(1, "0x" + "c0" * 20, bytes([7]) * 32)
SWARM, SEED = bytes([7]) * 32, bytes([1]) * 32
BURST_STAGE = STEADY_MESSAGES


def run() -> list[dict[str, Any]]:
    """Return the measurements. A process of its own forks the nodes, so that none inherits what runs here."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_gossip"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
        env=environment,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def rows_of(sent: dict[str, float], heard: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Return the rows: `sent` maps message to send time, `heard` has one such map of arrival times per node."""
    rows = []
    for name, wanted, goal in (("one a second", False, GOAL), ("all at once", True, None)):
        messages = [message for message in sent if message.endswith(f":{BURST_STAGE}") == wanted]
        delays = sorted(each[message] - sent[message] for each in heard for message in messages if message in each)
        due = len(messages) * (NODES - 1)
        share = sum(delay <= LATE for delay in delays) / due
        label = f"gossip of 32 KB among {NODES} nodes, {name}"
        rows += [
            row(f"{label}: delivered within {LATE:g} s", share, "share", goal, None if goal is None else share >= goal),
            row(f"{label}: delivered at all", len(delays) / due, "share", None, None),
            row(
                f"{label}: median delay", statistics.median(delays) * 1e3 if delays else float("inf"), "ms", None, None
            ),
            row(f"{label}: p99 delay", percentile(delays, 0.99) * 1e3, "ms", None, None),
        ]
    return rows


def row(name: str, value: float, unit: str, goal: float | None, met: bool | None) -> dict[str, Any]:
    """Return one line of the bench's table."""
    return {"name": name, "value": value, "unit": unit, "goal": goal, "met": met}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of an ascending sequence lies."""
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))] if ordered else float("inf")


# --- the process that forks the nodes -----------------------------------------------------------------------------


def lead() -> list[dict[str, Any]]:
    """Fork the nodes, connect them, give the start signal, collect what they heard."""
    context = get_context("fork")
    with tempfile.TemporaryDirectory() as home:
        links: list[Any] = []
        processes: list[Any] = []
        boots: list[Any] = []
        for number in range(NODES):
            ours, theirs = context.Pipe()
            process = context.Process(target=follow, args=(number, home, tuple(boots), theirs), daemon=True)
            process.start()
            theirs.close()
            links.append(ours)
            processes.append(process)
            if number < 3:
                boots.append(ours.recv())
        try:
            return conduct(links)
        finally:
            for process in processes:
                process.kill()


def conduct(links: list[Connection]) -> list[dict[str, Any]]:
    """Wait until the nodes are connected, start the schedule, return the rows."""
    deadline = time.time() + JOIN_SECONDS
    for link in links:
        while link.poll(max(0.0, deadline - time.time())) and link.recv() != "ready":
            continue
    begin = time.time() + SETTLE_SECONDS
    for link in links:
        link.send(begin)
    sent: dict[str, float] = {}
    heard = []
    for link in links:
        answer = link.recv()
        while not isinstance(answer, tuple):
            answer = link.recv()
        sent |= answer[0]
        heard.append(answer[1])
    return rows_of(sent, heard)


# --- one node -----------------------------------------------------------------------------------------------------


class Shelf(dict[Digest, bytes]):
    """Bodies in memory."""

    def put(self, digest: Digest, body: bytes, round_number: int) -> None:
        """Keep a body."""
        self[digest] = body


class Follower:
    """One node: sends when it is its turn, notes what it hears and when."""

    def __init__(self, number: int, home: str, boots: tuple[str, ...], link: Connection) -> None:
        self.number, self.link = number, link
        self.sent: dict[str, float] = {}
        self.heard: dict[str, float] = {}
        self.connected = trio.Event()
        self.shelf = Shelf()
        keys = [NodeKey(bytes([each + 1]) * 32) for each in range(NODES)]
        self.key = keys[number]
        settings = GossipSettings(listen=("/ip4/127.0.0.1/tcp/0",), bootnodes=boots)
        self.node = Libp2pNetwork(
            settings,
            SwarmMember(local_peer(self.key, None, DOMAIN), SWARM, LIMITS),
            self.shelf,
            NetworkCallbacks(lambda *_: Verdict(reason=""), lambda command, known: command),
            Path(home) / f"{number}.json",
        )
        peers = frozenset(key.address for key in keys)
        stages = BURST_STAGE + 1
        self.node.update_window(
            RoundWindow(swarm=SWARM, round=1, stage=stages - 1, stages=stages, seeds={1: SEED}, peers=peers)
        )

    async def report(self, happened: AnyInput) -> None:
        """Note arrivals and connections."""
        if isinstance(happened, RolloutsAnnounced):
            self.heard[f"{happened.peer}:{happened.stage}"] = time.time()
        elif isinstance(happened, NetworkChanged) and happened.connected >= ENOUGH_PEERS:
            self.connected.set()

    async def run(self) -> None:
        """Follow the schedule."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.node.run, self.report)
            nursery.start_soon(self.end_with, os.getppid())
            while not self.node.addresses:  # noqa: ASYNC110 - the service has no event for it
                await trio.sleep(0.02)
            if self.number < 3:
                self.link.send(self.node.addresses[0])
            await self.connected.wait()
            self.link.send("ready")
            await self.take_turns(await trio.to_thread.run_sync(self.link.recv))
            self.link.send((self.sent, self.heard))
            nursery.cancel_scope.cancel()

    async def end_with(self, parent: int) -> None:
        """End when the leading process has gone, however it went."""
        while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(1)
        os._exit(1)

    async def take_turns(self, begin: float) -> None:
        """Send in turn, then all at once, then wait for what is still under way."""
        for message in range(STEADY_MESSAGES):
            if message % NODES == self.number:
                await trio.sleep(max(0.0, begin + message - time.time()))
                await self.send(message)
        burst = begin + STEADY_MESSAGES + LATE
        await trio.sleep(max(0.0, burst - time.time()))
        await self.send(BURST_STAGE)
        await trio.sleep(max(0.0, burst + BURST_SECONDS - time.time()))

    async def send(self, stage: int) -> None:
        """Announce a body of 32 KB that travels inside the announcement."""
        body = os.urandom(BODY_BYTES)
        self.shelf.put(body_digest(body), body, 1)
        self.sent[f"{self.key.address}:{stage}"] = time.time()
        await self.node.execute(PublishRollouts(1, stage, SEED, body_digest(body), len(body)))


def follow(number: int, home: str, boots: tuple[str, ...], link: Connection) -> None:
    """Be one node, silently."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    trio.run(Follower(number, home, boots, link).run)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(lead()))
