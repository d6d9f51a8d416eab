"""A deployed coordinator on a real anvil, and chain services beside it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio
from eth_account import Account

from contracts import DeployedContract, Parameters, deploy, send
from node.chain.contract.swarm import ABI, signed_words
from node.chain.relay.signatures import sign
from node.chain.service import ChainIdentity, CoordinatorService
from node.config import ChainSettings
from node.localnet.local_chain import LocalChain, developer_keys
from node.machine.commands import ChainCommand, RegisterNode
from node.machine.inputs import AnyInput, StageOpened, TransactionSettled
from node.machine.transaction_keys import MessageKey, RegistrationKey, TransactionKey
from node.store.outbox import SqliteOutbox
from protocols.identifiers import Seed
from protocols.manifest import Manifest
from protocols.signed_messages import MessageKind, MessageTopic, SignedDelegation
from protocols.typed_data import Delegation, Domain

PATIENCE = 20.0
KEYS = developer_keys(4)
InputT = TypeVar("InputT", bound=AnyInput)


class Permissive:
    """A vote guard that remembers what it was asked and says `answer`."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    def admit(self, kind: str, round_number: int, seed: Seed, payload: bytes) -> bool:
        self.asked.append((kind, round_number))
        return self.answer


class Reports:
    """A service and what it reported."""

    def __init__(self, service: CoordinatorService) -> None:
        self.service = service
        self.inputs: list[AnyInput] = []

    async def report(self, one: AnyInput) -> None:
        self.inputs.append(one)

    async def until(
        self, kind: type[InputT], fits: Callable[[InputT], bool] = lambda _: True, since: int = 0
    ) -> InputT:
        """Wait for an input among those reported from number `since` on."""
        with trio.fail_after(PATIENCE):
            while True:
                for one in self.inputs[since:]:
                    if isinstance(one, kind) and fits(one):
                        return one
                await trio.sleep(0.01)

    async def settled(self, key: TransactionKey, since: int = 0) -> TransactionSettled:
        return await self.until(TransactionSettled, lambda one: one.key == key, since)


class Running(Reports):
    """A running service, which can be stopped."""

    def __init__(self, service: CoordinatorService, stop: trio.CancelScope) -> None:
        super().__init__(service)
        self.stop = stop

    async def execute(self, command: ChainCommand) -> None:
        await self.service.execute(command)


class Place:
    """A chain with a coordinator, and the disk of one node."""

    def __init__(self, chain: LocalChain, deployment: DeployedContract, home: Path) -> None:
        self.chain, self.deployment, self.home = chain, deployment, home
        self.account = Account.from_key(KEYS[1])

    def service(self, guard: Permissive | None = None, **changed: Any) -> CoordinatorService:
        urls = changed.pop("urls", (self.chain.url,))
        settings = ChainSettings(
            urls=urls,
            contract=self.deployment.address,
            poll_seconds=1.0,
            max_fee_gwei=10_000.0,
            relay_gas_per_day=changed.pop("relay_gas_per_day", 10_000_000),
        )
        outbox = SqliteOutbox(self.home / "outbox.sqlite")
        manifest = Manifest(name="test", confirmations=changed.pop("confirmations", 0))
        guard = guard or Permissive()
        identity = ChainIdentity(self.account, delegation=changed.pop("delegation", None))
        return CoordinatorService(settings, manifest, identity, outbox, guard, **changed)

    @asynccontextmanager
    async def running(self, guard: Permissive | None = None, **changed: Any) -> AsyncIterator[Running]:
        async with trio.open_nursery() as nursery:
            running = Running(self.service(guard, **changed), nursery.cancel_scope)
            nursery.start_soon(running.service.run, running.report)
            yield running
            nursery.cancel_scope.cancel()

    def advance(self) -> None:
        """Somebody else opens the next stage."""
        self.chain.call("evm_increaseTime", 100)
        self.chain.call("anvil_mine", "0x2")
        send(self.chain.url, KEYS[3], self.deployment.address, "advance")

    def delegation(self, owner: str, node: str, expiry: int = 2**64 - 1) -> SignedDelegation:
        """Return what both keys signed."""
        salt = self.view("eip712Domain")[5]
        domain = Domain(int(self.chain.call("eth_chainId"), 16), self.deployment.address, salt)
        both = [Account.from_key(key) for key in (owner, node)]
        owner, node = (str(account.address).lower() for account in both)
        said = Delegation(owner, node, time.time_ns() // 1_000_000, expiry)
        return SignedDelegation.of(said, *(sign(domain, said, account) for account in both))

    def register(self, key: str, owner: str | None = None) -> None:
        """Somebody else submits a registration; without an owner the node is its own."""
        data = ABI.call("register", signed_words(self.delegation(owner or key, key)))
        sender = Account.from_key(KEYS[3]).address
        call = {"from": sender, "to": self.deployment.address, "data": data, "gas": hex(500_000)}
        name = self.chain.call("eth_sendTransaction", call)
        while not (receipt := self.chain.call("eth_getTransactionReceipt", name)):
            time.sleep(0.02)
        assert receipt["status"] == "0x1"

    def now(self) -> int:
        return int(self.chain.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def forget(self) -> None:
        """Lose the outbox."""
        (self.home / "outbox.sqlite").unlink()

    def view(self, function: str, *arguments: object) -> tuple[Any, ...]:
        call = {"to": self.deployment.address, "data": ABI.call(function, *arguments)}
        return ABI.result(function, self.chain.call("eth_call", call, "latest"))

    def nonce(self, tag: str = "latest") -> int:
        return int(self.chain.call("eth_getTransactionCount", self.account.address, tag), 16)


def place_on(chain: LocalChain, home: Path, mode: str = "open", seconds: int = 60) -> Place:
    parameters = Parameters(
        stage_seconds=(seconds, seconds), manifest_digest=b"m" * 32, voting_mode=mode, anchor_blocks=1
    )
    return Place(chain, deploy(chain.url, KEYS[0], parameters), home)


async def voter(place: Place, node: Running) -> StageOpened:
    """Register two nodes and go on until their first round can be voted on; return that round's first stage."""
    place.register(KEYS[2])
    await node.execute(RegisterNode())
    await node.settled(RegistrationKey())
    for _ in range(4):
        place.advance()
    await node.until(StageOpened, lambda one: one.round == 2)
    return await node.until(StageOpened, lambda one: one.round == 1)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds on the chain."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the chain has no trio event to wait for
            await trio.sleep(0.02)


def other() -> str:
    return str(Account.from_key(KEYS[2]).address).lower()


def vote_key(round_number: int, seed: Seed) -> MessageKey:
    """Return what an open vote on a round settles under."""
    return MessageKey(MessageTopic(MessageKind.VOTE, round_number), seed)
