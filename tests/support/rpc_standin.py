"""An endpoint out of memory: a quiet chain with a coordinator on it, and whatever a test has it answer otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from eth_abi.abi import encode
from eth_account import Account

from node.chain.contract.swarm import ABI
from node.chain.service import ChainIdentity, CoordinatorService
from node.config import ChainSettings
from node.machine.inputs import AnyInput
from node.store.outbox import SqliteOutbox
from protocols.manifest import Manifest

CONTRACT = "0x" + "c0" * 20
SEED = b"e" * 32
NOW = 1_800_000_000
TIP = 20

VIEWS: dict[str, tuple[Any, ...]] = {
    "deployedBlock": (1,),
    "stageCount": (1,),
    "stageSeconds": (60,),
    "manifestDigest": (b"m" * 32,),
    "votingMode": (1,),
    "eip712Domain": (b"\x1f", "SwarmCoordinator", "1", 31337, CONTRACT, b"s" * 32, []),
    "quorum": (0,),
    "earliest": (0,),
    "current": (5, 0, SEED, NOW + 60, NOW),
    "pausedUntil": (0,),
    "nodes": ("0x" + "00" * 20, 0, 0, 0),
    "seedOf": (SEED,),
    "bootnodes": (["/ip4/192.0.2.7/tcp/1"],),
}
"""What the contract's views answer."""

ANSWERS: dict[str, Any] = {
    "eth_chainId": "0x7a69",
    "eth_blockNumber": hex(TIP),
    "eth_getLogs": [],
    "eth_getTransactionCount": "0x0",
    "eth_getBalance": hex(10**20),
    "eth_gasPrice": "0x1",
    "eth_estimateGas": "0x5208",
    "eth_feeHistory": {"baseFeePerGas": ["0x1"], "reward": [["0x1"]]},
    "eth_sendRawTransaction": "0x" + "77" * 32,
    "eth_getTransactionReceipt": None,
    "eth_getTransactionByHash": None,
}

Answer = Callable[..., Any]


def block(number: int) -> dict[str, Any]:
    return {
        "number": hex(number),
        "hash": f"0x{number:064x}",
        "parentHash": f"0x{number - 1:064x}",
        "timestamp": hex(NOW),
        "logsBloom": "0x" + "00" * 256,
        "baseFeePerGas": "0x1",
    }


def called(data: str) -> str:
    """Return the name of the view that a call asks for."""
    return next(name for name in VIEWS if ABI._functions[name].signature[:4].hex() == data[2:10])


def answered(method: str, *parameters: Any) -> Any:
    """Return what the chain answers."""
    match method:
        case "eth_call":
            name = called(parameters[0]["data"])
            return "0x" + encode(ABI._functions[name].returns, VIEWS[name]).hex()
        case "eth_getBlockByNumber":
            return block(TIP if parameters[0] == "latest" else int(parameters[0], 16))
        case _:
            return ANSWERS[method]


class StandIn:
    """One connection; `otherwise` answers, or raises, in the chain's place."""

    def __init__(self, otherwise: dict[str, Answer], asked: Counter[str]) -> None:
        self._otherwise, self._asked = otherwise, asked
        self._blocks, self.heads = trio.open_memory_channel[dict[str, Any]](1)

    async def request(self, method: str, *parameters: object) -> Any:
        """See `node.chain.rpc.client.RpcEndpoint`."""
        await trio.sleep(0.001)
        self._asked[method] += 1
        return self._otherwise.get(method, lambda *given: answered(method, *given))(*parameters)  # type: ignore[no-untyped-call]


class StandinConnection:
    """Dials stand-ins by URL: counts what was asked of them, keeps who was dialled when."""

    def __init__(self, **otherwise: dict[str, Answer]) -> None:
        self._otherwise = {f"http://{name}": answers for name, answers in otherwise.items()}
        self.urls = tuple(self._otherwise)
        self.asked: Counter[str] = Counter()
        self.dialled: list[tuple[str, float]] = []

    @asynccontextmanager
    async def dial(self, url: str, poll_seconds: float) -> AsyncIterator[StandIn]:
        """See `node.chain.contract_access.Dial`."""
        self.dialled.append((url, trio.current_time()))
        yield StandIn(self._otherwise[url], self.asked)

    def service(self, home: Path) -> CoordinatorService:
        """Return a service over this line."""
        return CoordinatorService(
            ChainSettings(urls=self.urls, contract=CONTRACT, binding="swarm"),
            Manifest(name="test"),
            ChainIdentity(Account.from_key(b"\1" * 32)),
            SqliteOutbox(home / "outbox.sqlite"),
            Anything(),
            clock=lambda: NOW + trio.current_time() % 1e6,
            dial=self.dial,
        )


class Anything:
    """A vote guard that lets everything pass."""

    def admit(self, *_: object) -> bool:
        return True


async def followed(service: CoordinatorService, seconds: float, *commands: Any) -> list[AnyInput]:
    """Run a service for so long by trio's clock with these commands; return what it reported."""
    inputs: list[AnyInput] = []

    async def report(one: AnyInput) -> None:
        inputs.append(one)

    for command in commands:
        await service.execute(command)
    with trio.move_on_after(seconds):
        await service.run(report)
    return inputs
