"""One hostile process against three honest nodes: every attack, one after another, while honest traffic is measured.

`python -m tests.redteam.network.campaign [--seconds 3600] [--seed N] [--each 20] [NAME...]` (`make attack`) carries out
all attacks, or those named, in random order until the time is over. It prints a line for each, and ends with 1 where a
bound was broken (`breaches`).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import structlog
import trio

from tests.integration.gossip_processes import TOPIC, Process, Swarm, addresses, swarm_of
from tests.redteam.network.hostile_process import ATTACKS, Order
from tests.redteam.network.meter import Meter, Usage, lines_with, memory_now
from tests.redteam.network.stranger import Facts, RefusedError, Victim, stranger, write_facts

HONEST = 3
REGISTERED = 250
TRIP_SECONDS, NEWCOMER_SECONDS = 20.0, 10.0
"""After this long a body counts as lost, a newcomer as refused."""
LULL_SECONDS = 1.0
START_SECONDS = 30.0
"""How long an attack may take to begin."""
BODY = 50_000
LARGE_BODY = 3_000_000

MEMORY = 256 << 20
DESCRIPTORS = 300
"""Resident bytes and descriptors that an honest node may have, attacked or not; it has about 100 MiB and 20."""
DEEDS = ("sockets", "connections", "announcements")
"""What an attack counts once it has got anywhere."""
CPU = 0.6
"""Share of a core that an attack may cost an honest node; most cost a tenth."""
DELAY_SECONDS = 1.0
"""Median of the time from publishing a body until another honest node has checked it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attack. Times in seconds, memory in bytes; `delays` has None for a body that was lost."""

    attack: str
    usage: Usage
    memory_after: int
    delays: tuple[float | None, ...]
    newcomers: tuple[float | None, ...]
    banned: tuple[str, ...]
    alive: bool
    done: dict[str, int]

    @property
    def median(self) -> float:
        """The median delay of honest bodies; a lost one counts as the time after which it was given up."""
        return statistics.median(TRIP_SECONDS if each is None else each for each in self.delays)


def breaches(outcome: Outcome, delay: float = DELAY_SECONDS, cpu: float = CPU) -> list[str]:
    """Return which bounds an attack has broken; `delay` is that of honest bodies, `cpu` the share of a core."""
    found = {
        "an honest node ended": not outcome.alive,
        "memory": outcome.usage.memory > MEMORY,
        "processor": outcome.usage.cpu > cpu,
        "descriptors": outcome.usage.descriptors > DESCRIPTORS,
        "an honest body was lost": None in outcome.delays,
        "honest bodies late": outcome.median > delay,
        "an honest peer was banned": bool(outcome.banned),
        "a newcomer was refused": None in outcome.newcomers,
        "dialled whom a stranger named": bool(outcome.done.get("dialled") or outcome.done.get("knocks")),
        "the attack did nothing": not any(outcome.done.get(name) for name in DEEDS),
    }
    return [what for what, broken in found.items() if broken]


class Campaign:
    """Three honest nodes, of which every attack turns to the first (some to all)."""

    def __init__(self, home: Path, nodes: list[Process], dice: Random) -> None:
        self.home, self.nodes, self._dice = home, nodes, dice
        self.victims = tuple(_victim(node) for node in nodes)
        self._facts = home / "facts"
        self._round, self._trips, self._attacks, self._large = 1, 0, 0, ""

    @property
    def _pids(self) -> list[int]:
        return [node.inner.pid for node in self.nodes]

    async def prepare(self) -> None:
        """Have the nodes connected and a large body served."""
        self._large = await self.nodes[1].publish(size=LARGE_BODY)
        await self.nodes[0].event("RolloutsArrived", body=self._large)
        await self._next_round()

    async def suffer(self, name: str, seconds: float) -> Outcome:
        """Run one attack for some seconds and return what came of it."""
        meter, delays, newcomers = Meter(self._pids), [], []
        since = self._log_lengths()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meter.run)
            async with self._attacked(name) as done:
                until = time.monotonic() + seconds
                await trio.sleep(LULL_SECONDS)
                newcomers.append(await self._newcomer())
                while time.monotonic() < until or (not is_felt(done) and time.monotonic() < until + START_SECONDS):
                    delays += await self._trip()
                usage, told = meter.usage(), _counts(done)
            delays += await self._trip()
            newcomers.append(await self._newcomer())
            nursery.cancel_scope.cancel()
        return Outcome(
            attack=name,
            usage=usage,
            memory_after=memory_now(self._pids),
            delays=tuple(delays),
            newcomers=tuple(newcomers),
            banned=self._banned(since),
            alive=all(node.inner.returncode is None for node in self.nodes),
            done=told,
        )

    @asynccontextmanager
    async def _attacked(self, name: str) -> AsyncIterator[Path]:
        self._attacks += 1
        done = self.home / f"{name}-{self._attacks}.done"
        address = f"127.66.{self._attacks // 250}.{1 + self._attacks % 250}"
        order = Order(name, address, self.victims, str(self._facts), str(done), self._dice.getrandbits(32))
        with (self.home / f"{name}.log").open("ab") as log:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "tests.redteam.network.hostile_process", msgspec.json.encode(order).decode()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        try:
            with trio.move_on_after(20):
                while not done.exists():  # noqa: ASYNC110 - another process writes it
                    await trio.sleep(0.05)
            yield done
        finally:
            process.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()

    async def _next_round(self) -> None:
        self._round += 1
        for node in self.nodes:
            await node.do("window", round=self._round, stage=0)
        write_facts(self._facts, Facts(self._round, self._large))

    async def _trip(self) -> list[float | None]:
        """Open a round in which one node publishes; return how long each other one took to have its body."""
        await self._next_round()
        self._trips += 1
        author = self.nodes[self._trips % len(self.nodes)]
        began = time.monotonic()
        body = await author.publish(size=BODY)
        found: list[float | None] = []
        for node in self.nodes:
            if node is not author:
                found.append(await _arrival(node, body, began))
        await trio.sleep(LULL_SECONDS)
        return found

    async def _newcomer(self) -> float | None:
        """Return how long an honest stranger takes to connect to the first node and hear of its topic."""
        began = time.monotonic()
        while time.monotonic() < began + NEWCOMER_SECONDS:
            try:
                async with stranger(self.victims[0]):
                    return time.monotonic() - began
            except (RefusedError, OSError, ExceptionGroup):
                await trio.sleep(0.05)
        return None

    def _log_lengths(self) -> list[int]:
        return [path.stat().st_size for path in self._logs()]

    def _logs(self) -> list[Path]:
        return [self.home / f"{number}.log" for number in range(1, HONEST + 1)]

    def _banned(self, since: list[int]) -> tuple[str, ...]:
        """Return what the honest nodes have logged since about bans of each other."""
        fresh = []
        for path, start in zip(self._logs(), since, strict=True):
            with path.open("rb") as log:
                log.seek(start)
                copy = self.home / f"{path.name}.since"
                copy.write_bytes(log.read())
                fresh.append(copy)
        return tuple(line for victim in self.victims for line in lines_with(fresh, "banned", victim.peer))


async def _arrival(node: Process, body: str, began: float) -> float | None:
    try:
        await node.event("RolloutsArrived", TRIP_SECONDS, body=body)
    except trio.TooSlowError:
        return None
    return time.monotonic() - began


def _victim(node: Process) -> Victim:
    transport, _, peer = addresses(node)[0].rpartition("/p2p/")
    return Victim(transport, peer, TOPIC)


def is_felt(done: Path) -> bool:
    """Return True once an attack has got anywhere: on a busy machine that takes some seconds."""
    return any(_counts(done).get(name) for name in DEEDS)


def _counts(path: Path) -> dict[str, int]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, int]) if path.exists() else {}


@asynccontextmanager
async def campaign(home: Path, dice: Random) -> AsyncIterator[Campaign]:
    """Run three honest nodes that know each other, and yield what attacks them."""
    async with swarm_of(home, REGISTERED) as swarm:
        nodes = await _honest(swarm)
        found = Campaign(home, nodes, dice)
        await found.prepare()
        yield found


async def _honest(swarm: Swarm) -> list[Process]:
    """Start the nodes. The others dial the first one, which most attacks turn to: all its honest links are inbound."""
    nodes = await swarm.start_all(range(1, HONEST + 1), ping=5.0)
    await trio.sleep(LULL_SECONDS)
    return nodes


def report(outcome: Outcome) -> str:
    """Return an outcome as one line."""
    newcomers = ", ".join("refused" if each is None else f"{each:.1f} s" for each in outcome.newcomers)
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(outcome.done.items()))
    broken = "; ".join(breaches(outcome)) or "held"
    return (
        f"{outcome.attack:24} {outcome.usage.memory >> 20:4} MiB (after {outcome.memory_after >> 20}) "
        f"{outcome.usage.cpu:.2f} cores {outcome.usage.descriptors:3} files; {len(outcome.delays)} bodies, median "
        f"{outcome.median:.2f} s; newcomers {newcomers}; {broken} [{told}]"
    )


async def press(seconds: float, each: float, seed: int, names: list[str], home: Path) -> list[Outcome]:
    """Attack in random order until the time is over; print and return the outcomes."""
    dice, outcomes = Random(seed), []
    async with campaign(home, dice) as field:
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            for name in dice.sample(names, len(names)):
                if trio.current_time() < until:
                    outcomes.append(await field.suffer(name, each))
                    sys.stdout.write(report(outcomes[-1]) + "\n")
                    sys.stdout.flush()
    return outcomes


def main(arguments: list[str]) -> int:
    """Return 1 where a bound was broken."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long to attack")
    parser.add_argument("--each", type=float, default=20.0, help="seconds of one attack")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the order and the attackers")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ATTACKS)}")
    given = parser.parse_args(arguments)
    sys.stdout.write(f"seed {given.seed}\n")
    with tempfile.TemporaryDirectory(prefix="attack-") as home:
        outcomes = trio.run(press, given.seconds, given.each, given.seed, given.names or list(ATTACKS), Path(home))
    return int(any(breaches(outcome) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
