"""From the block that holds a contract's event to the machine's command: real chain, service, bus, journal, machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog
import trio
from eth_account import Account

from contracts import Parameters, deploy
from node.chain.contract.swarm import ABI
from node.chain.service import ChainIdentity, CoordinatorService
from node.config import ChainSettings
from node.localnet.local_chain import LocalChain
from node.machine.commands import AnyCommand, SetTimer
from node.machine.inputs import StageOpened
from node.machine.state import initial
from node.runtime.bus import Bus
from node.runtime.loop import Loop
from node.store.journal import Journal
from node.store.outbox import SqliteOutbox
from node.vote_protection import VoteProtection
from protocols.manifest import Manifest, StageSpec

EVENTS = 200
STAGE_SECONDS = 60
GOAL = 50.0
GAS = hex(500_000)


def run() -> list[dict[str, Any]]:
    """Return the rows: milliseconds from asking the chain to mine until the machine's command is carried out."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    with tempfile.TemporaryDirectory() as home, LocalChain(block_seconds=None, accounts=3) as chain:
        took = sorted(trio.run(_measured, chain, Path(home)))
    return [
        _row("event mined to command, median", statistics.median(took), None),
        _row(f"event mined to command, 99th percentile of {EVENTS}", took[int(EVENTS * 0.99)], GOAL),
    ]


def _row(name: str, value: float, goal: float | None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "ms", "goal": goal and f"< {goal:g}", "met": goal and value < goal}


class Watched:
    """A node without gossip and trainer that notes when the command for a stage is carried out."""

    def __init__(self, chain: LocalChain, home: Path, journal: Journal, guard: VoteProtection) -> None:
        account = Account.from_key(chain.keys[1])
        manifest = Manifest(name="bench", stages=(StageSpec(name="play", seconds=STAGE_SECONDS),) * 2)
        terms = Parameters(
            stage_seconds=(STAGE_SECONDS,) * 2, manifest_digest=bytes(32), block_seconds=1, anchor_blocks=1
        )
        self.contract = deploy(chain.url, chain.keys[0], terms).address
        settings = ChainSettings(urls=(chain.url,), contract=self.contract)
        outbox = SqliteOutbox(home / "outbox.sqlite")
        self.service = CoordinatorService(settings, manifest, ChainIdentity(account), outbox, guard)
        self.bus = Bus()
        state = initial(account.address.lower(), manifest)
        self.loop = Loop(journal, state, self._dispatch, self.bus.publish, time.time)
        self._opened = False
        self.carried_out = trio.Event()
        self.at = 0.0

    async def take_all(self) -> None:
        """Take inputs for ever."""
        while True:
            happened = await self.bus.next()
            self._opened = isinstance(happened, StageOpened)
            await self.loop.take(happened)

    async def _dispatch(self, command: AnyCommand) -> None:
        if self._opened and isinstance(command, SetTimer) and not self.carried_out.is_set():
            self.at = time.perf_counter()
            self.carried_out.set()


async def _measured(chain: LocalChain, home: Path) -> list[float]:
    with VoteProtection(home / "votes.sqlite") as guard, Journal(home / "journal.sqlite") as journal:
        watched = Watched(chain, home, journal, guard)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.service.run, watched.bus.reporter("chain"))
            nursery.start_soon(watched.take_all)
            with trio.fail_after(20):
                await watched.carried_out.wait()
            chain.call("evm_setAutomine", False)
            took = [await _one(chain, watched) for _ in range(EVENTS)]
            nursery.cancel_scope.cancel()
    return took


async def _one(chain: LocalChain, watched: Watched) -> float:
    """Open one stage; return the milliseconds until the machine's answer to it."""

    def prepare() -> None:
        chain.call("evm_increaseTime", STAGE_SECONDS + 1)
        chain.call("anvil_mine", "0x2")
        sender = Account.from_key(chain.keys[2]).address
        call = {"from": sender, "to": watched.contract, "data": ABI.call("advance"), "gas": GAS}
        chain.call("eth_sendTransaction", call)

    await trio.to_thread.run_sync(prepare)
    await trio.sleep(0.01)
    watched.carried_out = trio.Event()
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, chain.call, "evm_mine")
        with trio.fail_after(10):
            await watched.carried_out.wait()
    return (watched.at - began) * 1000
