"""Swarms of `gossip_peer.py` processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from node.identity import NodeKey
from protocols.wire import announcements_topic

PROGRAM = Path(__file__).with_name("gossip_peer.py")
SWARM = bytes([7]) * 32
TOPIC = announcements_topic(SWARM, b"")
Event = dict[str, Any]


def peer_key(number: int) -> NodeKey:
    return NodeKey(bytes([number]) * 32)


def seed(round_number: int) -> bytes:
    return round_number.to_bytes(32, "big")


class Process:
    """A `gossip_peer.py` and everything that it has reported."""

    def __init__(self, inner: trio.Process) -> None:
        self.inner = inner
        self.events: list[Event] = []
        self._news = trio.Event()

    async def listen(self) -> None:
        rest = b""
        assert self.inner.stdout is not None
        async for data in self.inner.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.events += [json.loads(line) for line in lines]
            self._news.set()
            self._news = trio.Event()

    async def do(self, what: str, **fields: Any) -> None:
        assert self.inner.stdin is not None
        await self.inner.stdin.send_all(json.dumps({"do": what} | fields).encode() + b"\n")

    async def until(self, wanted: Callable[[Event], bool], seconds: float = 20.0, since: int = 0) -> Event:
        with trio.fail_after(seconds):
            while True:
                news = self._news
                found = next((event for event in self.events[since:] if wanted(event)), None)
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
        mark = len(self.events)
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
        mark = len(self.events)
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
    found: list[str] = next(event["addresses"] for event in process.events if event["event"] == "up")
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
