"""The chain service: keeps a connection, follows the coordinator, carries commands out, reports what happened."""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, TypeAlias, TypeVar

import structlog
import trio
from eth_abi.exceptions import DecodingError
from eth_account.signers.local import LocalAccount

from node.chain.account_watch import AccountWatch
from node.chain.contract.interface import CoordinatorBinding, CoordinatorReader, Name, SwarmBinding, detect
from node.chain.contract.rlswarm import RLSwarmBinding
from node.chain.contract.swarm import CoordinatorFacts, NodeEntry, Voter
from node.chain.contract.swarm_reader import NoCoordinatorError
from node.chain.relay.batcher import Batcher
from node.chain.relay.relayer import Relayer
from node.chain.relay.signatures import own_delegation
from node.chain.relay.signer import MessageSigner
from node.chain.rpc.block_follower import BlockFollower, latest_head
from node.chain.rpc.blocks import BlockAdded, BlockHead, Update, parse_head
from node.chain.rpc.client import ConnectionLostError, RpcEndpoint, RpcError, connect
from node.chain.rpc.failover import LAST_PAUSE, EndpointFailover, shown
from node.chain.stage_tracker import ClockOffset, StageTracker
from node.chain.transactions.fees import GWEI
from node.chain.transactions.tx_manager import STUCK_SECONDS, TransactionManager
from node.chain.transactions.tx_queue import DeploymentKey, OutboxStore, QueuedTransaction, TransactionQueue
from node.config import ChainSettings
from node.exits import Exit, Refusal
from node.identity import NodeKey
from node.logs import redacted
from node.machine.commands import ChainCommand
from node.machine.inputs import ChainLost, ChainRestored, PauseChanged, TransactionSettled
from node.ports import Report, VoteGuard
from protocols.identifiers import Address, swarm_id
from protocols.manifest import Manifest
from protocols.signed_messages import SignedDelegation, SignedMessage

log = structlog.get_logger()

PAUSE_SHARE = 0.2
"""No pause is longer than this share of the shortest stage: a vote has one stage to reach the chain once it is back."""

FAULTS = (ConnectionLostError, RpcError, NoCoordinatorError, DecodingError)
"""What endpoints do wrong; anything else is a fault of this node's, and ends the service visibly."""

AnswerT = TypeVar("AnswerT")
Dial: TypeAlias = Callable[[str, float], AbstractAsyncContextManager[RpcEndpoint]]


class CoordinatorService:
    """The node's only way to the coordinator (`node.ports.ChainService`).

    `outbox` holds commands from `execute` on until they are settled, over crashes. `guard` is asked before a vote is
    signed. `secret` (32 bytes) derives the salts of sealed votes. `delegation` is the owner's; without one the node is
    its own owner. `peer_id` is the key's own by default. `clock` gives Unix seconds, `dial` a connection.
    """

    name = "chain"

    def __init__(
        self,
        settings: ChainSettings,
        account: LocalAccount,
        manifest: Manifest,
        outbox: OutboxStore,
        guard: VoteGuard,
        secret: bytes,
        *,
        delegation: SignedDelegation | None = None,
        peer_id: str = "",
        clock: Callable[[], float] = time.time,
        stuck_seconds: float = STUCK_SECONDS,
        dial: Dial = connect,
    ) -> None:
        self._settings, self._clock, self._secret, self._dial = settings, clock, secret, dial
        self._account, self.delegation = account, delegation
        self._contract = settings.contract.lower()
        self._address = str(account.address).lower()
        self._shelf = TransactionQueue(outbox)
        self._manifest, self._confirmations = manifest, manifest.confirmations
        self._last_pause = min(LAST_PAUSE, PAUSE_SHARE * min(stage.seconds for stage in manifest.stages))
        self._peer_id = peer_id or NodeKey(bytes(account.key)).peer_id
        self._binding: CoordinatorBinding | None = None
        self._tracker: StageTracker
        self._follower: BlockFollower
        self._carrier: MessageSigner | None = None
        self._answers: list[TransactionSettled] = []
        self._answered = trio.Event()
        self._watch = AccountWatch(self._address, settings, self._shelf, clock, manifest.confirmations)
        self._facts: CoordinatorFacts | None = None
        self._bootnodes: tuple[str, ...] = ()
        self._report: Report
        self._sender = TransactionManager(
            account,
            self._contract,
            self._shelf,
            guard,
            self._settled,
            confirmations=manifest.confirmations,
            max_fee=round(settings.max_fee_gwei * GWEI),
            stuck_seconds=stuck_seconds,
            clock=clock,
        )
        self._guard = guard

    # --- seam ---------------------------------------------------------------------------------------------------

    async def execute(self, command: ChainCommand) -> None:
        """Store a command, durably, and return. What was done already is answered again as it was.

        A command that failed before is tried anew: the simulation tells at no cost whether it fails again. One that
        waits takes the form that it was given last: when it is to be sent may have changed.
        """
        known = self._shelf.get(command.key)
        if known is not None and known.state == "settled" and known.ok:
            self._answers.append(known.outcome)
            self._answered.set()
        elif known is None or known.state != "sent":
            self._shelf.put(QueuedTransaction(key=command.key, command=command))
            self._sender.wake()

    def take_part(self, facts: CoordinatorFacts, delegation: SignedDelegation | None) -> None:
        """Learn the deployment and the owner's delegation for it, or a new one: from now on `carry` signs."""
        self.delegation = delegation
        if facts.has_owners:
            voter = self._voter(facts)
            self._carrier = MessageSigner(self._account, facts.domain, voter, self._guard)
            self._sender.voter = voter
            self._watch.take(delegation)

    def carry(self, commands: tuple[ChainCommand, ...]) -> tuple[SignedMessage, ...]:
        """Return this node's own messages as they travel in an announcement; none before `take_part`."""
        return self._carrier.messages(commands) if self._carrier else ()

    @property
    def entry(self) -> NodeEntry | None:
        """How the register has this node, as far as it is confirmed; None until it was read."""
        return self._watch.entry

    def introduction(self) -> SignedDelegation | None:
        """Return the delegation with which anybody can register this node."""
        return self._carrier.delegation if self._carrier else None

    async def describe(self) -> CoordinatorFacts:
        """Return what the contract fixed, from the first endpoint that answers.

        Raises `NoCoordinatorError` where no coordinator is at the address, else `ConnectionLostError`; `Refusal` where
        this node's identity is another account's.
        """
        facts = await self._ask(lambda reader: reader.facts())
        holder = await self._ask(lambda reader: reader.holder())
        if holder not in (None, self._address):
            raise Refusal(
                Exit.IDENTITY,
                f"the peer id {self._peer_id} is registered to the account {holder}, "
                f"not to this node's {self._address}; start with that account's key, or with a new node key",
            )
        return facts

    async def owner(self) -> Address | None:
        """Return whose this node is in the contract; None where the contract does not know it, or can't be asked."""
        try:
            return await self._ask(lambda reader: reader.owner(self._address))
        except FAULTS as error:
            log.info("chain.owner_unread", reason=str(error))
            return None

    async def bootnodes(self) -> tuple[str, ...]:
        """Return the contract's bootnodes; those read last while the chain is away."""
        try:
            self._bootnodes = await self._ask(lambda reader: reader.bootnodes())
        except FAULTS as error:
            log.info("chain.bootnodes_unread", reason=str(error))
        return self._bootnodes

    async def run(self, report: Report) -> None:
        """Follow and send until cancelled. See `node.ports.Service`."""
        self._report = report
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer)
            await self._stay_connected()

    # --- connections --------------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        """Try the endpoints in turn for ever; the chain is lost while there is none that is worth trying at once."""
        attempts = EndpointFailover(self._settings.urls, self._last_pause)
        told: Literal["lost", "restored"] | None = None
        while True:
            url, live, began = attempts.url, trio.Event(), trio.current_time()
            reason = await self._session(url, live, told != "restored")
            attempts.ended(trio.current_time() - began if live.is_set() else 0.0)
            told = "restored" if live.is_set() else told
            log.warning("chain.disconnected", url=shown(url), reason=reason)
            if attempts.pause and told != "lost":
                told = "lost"
                await self._report(ChainLost(reason))
            await trio.sleep(attempts.pause * random.uniform(0.5, 1.0))

    async def _session(self, url: str, live: trio.Event, known_lost: bool) -> str:
        """Work over one endpoint until it fails; return why it did."""
        reasons: list[str] = []
        try:
            async with self._dial(url, self._settings.poll_seconds) as endpoint:
                await self._follow(endpoint, live, known_lost)
        except* FAULTS as group:
            reasons = [str(redacted(str(error))) for error in _leaves(group)]  # they go into the journal
            if group.subgroup(DecodingError):
                self._follower.forget()  # what it told before is not to be trusted either
        return reasons[0] if reasons else "the connection ended"

    async def _follow(self, endpoint: RpcEndpoint, live: trio.Event, known_lost: bool) -> None:
        """Fill the gap, tell what is, then go on with each new head."""
        binding = await self._bind(endpoint)
        reader = binding.reader(endpoint, self._contract)
        facts = await self._same_deployment(reader)
        head = await latest_head(endpoint)
        offset = ClockOffset(head.timestamp, self._clock())
        peers = self._tracker.again()
        await self._follower.sync(endpoint, head)
        live.set()
        log.info("chain.connected", block=head.number, contract=self._contract)
        if known_lost:
            await self._report(ChainRestored(offset.value))
        for peer in peers:
            await self._report(peer)
        await self._tell(reader)
        voter = self._voter(facts)
        async with trio.open_nursery() as nursery:
            self._sender.saw(head)
            nursery.start_soon(
                self._sender.work, endpoint, binding, voter, facts.chain_id, self._relayer(reader, facts)
            )
            if self._carrier is not None and reader.relay is not None:
                nursery.start_soon(self._watch.run, endpoint, reader.relay, self._follower, self._report)
            while True:
                head, pushed = await self._next_head(endpoint)
                now = self._clock()
                await self._follower.sync(endpoint, head)
                await self._tell(reader)
                self._sender.saw(head)
                if pushed and offset.arrived(head.timestamp, now):
                    await self._report(ChainRestored(offset.value))

    # --- relaying -------------------------------------------------------------------------------------------------

    def _relayer(self, reader: CoordinatorReader, facts: CoordinatorFacts) -> Relayer | None:
        if self._carrier is None or reader.relay is None:
            return None
        batcher = Batcher(reader.relay, facts.domain)
        return Relayer(self._address, batcher, self._carrier, self._shelf, self._settings.relay_gas_per_day)

    def _take(self, update: Update) -> None:
        """Hand an update to the tracker; look at the account again where this node is named."""
        self._tracker.take(update)
        if isinstance(update, BlockAdded) and self._watch.is_named(update.logs):
            self._watch.wake()

    async def _next_head(self, endpoint: RpcEndpoint) -> tuple[BlockHead, bool]:
        """Return the next head and whether it just came; after a silence ask, for a subscription can die quietly."""
        pushed = None
        with trio.move_on_after(self._settings.poll_seconds):
            try:
                pushed = await endpoint.heads.receive()
            except trio.EndOfChannel:
                raise ConnectionLostError("the subscription ended") from None
        return (parse_head(pushed), True) if pushed is not None else (await latest_head(endpoint), False)

    async def _tell(self, reader: CoordinatorReader) -> None:
        """Report what the last updates brought."""
        news = self._tracker.news()
        for one in news:
            await self._report(one)
        if any(isinstance(one, PauseChanged) for one in news):
            self._sender.wake(retry=True)
        tip = self._follower.tip
        if self._tracker.stale and tip is not None:
            block = max(tip.number - self._confirmations, self._follower.start)
            until = await reader.pause(block)
            for one in self._tracker.read(await reader.stage(block), until if until > tip.timestamp else 0):
                await self._report(one)

    # --- deployment ---------------------------------------------------------------------------------------------

    async def _bind(self, endpoint: RpcEndpoint) -> CoordinatorBinding:
        """Return the contract's interface, found out once."""
        if self._binding is None:
            chosen = self._settings.binding
            name = await detect(endpoint, self._contract) if chosen == "auto" else chosen
            self._adopt(name)
        assert self._binding
        return self._binding

    def _adopt(self, name: Name) -> None:
        if self._binding is not None:
            return  # somebody asked at the same time and was answered first
        seconds = [stage.seconds for stage in self._manifest.stages]
        self._binding = (
            SwarmBinding() if name == "swarm" else RLSwarmBinding(self._contract, self._address, self._peer_id, seconds)
        )
        self._tracker = StageTracker(self._confirmations, self._binding)
        self._follower = BlockFollower(self._contract, self._take, self._binding.topics)
        log.info("chain.bound", binding=name)

    async def _same_deployment(self, reader: CoordinatorReader) -> CoordinatorFacts:
        """Read the facts. Raises `NoCoordinatorError` where this is another chain than the outbox was used with.

        Known by the block of the deployment: a local chain that is started afresh repeats ids and addresses.
        """
        facts = await reader.facts()
        found = facts.deployment_block_hash.hex()
        known = self._shelf.get(DeploymentKey())
        if known is not None and known.transaction != found:
            raise NoCoordinatorError(
                "this is not the chain that this node joined: the coordinator's deployment block differs; "
                "check [chain] urls, or join the new swarm with a new data directory"
            )
        self._shelf.put(QueuedTransaction(key=DeploymentKey(), command=None, state="settled", transaction=found))
        self._follower.start = facts.deployment_block
        self._facts = facts
        return facts

    def _voter(self, facts: CoordinatorFacts) -> Voter:
        swarm = swarm_id(facts.chain_id, facts.contract, facts.deployment_block_hash)
        serial = int(self._clock() * 1000)
        delegation = self.delegation or own_delegation(facts.domain, self._account, serial)
        return Voter(self._address, self._secret, swarm, delegation)

    async def _ask(self, question: Callable[[CoordinatorReader], Awaitable[AnswerT]]) -> AnswerT:
        """Ask the first endpoint that answers. Raises the last one's `ConnectionLostError`, `NoCoordinatorError`."""
        failure: Exception = ConnectionLostError("no endpoint is configured; set [chain] urls")
        for url in self._settings.urls:
            try:
                async with self._reader(url) as reader:
                    return await question(reader)
            except* FAULTS as group:
                failure = next(iter(_leaves(group)))
        raise failure

    @asynccontextmanager
    async def _reader(self, url: str) -> AsyncGenerator[CoordinatorReader, None]:
        async with self._dial(url, math.inf) as endpoint:
            yield (await self._bind(endpoint)).reader(endpoint, self._contract)

    # --- answers ------------------------------------------------------------------------------------------------

    async def _settled(self, settled: TransactionSettled) -> None:
        await self._report(settled)

    async def _answer(self) -> None:
        """Answer commands that had been settled before, with or without the chain."""
        while True:
            await self._answered.wait()
            self._answered = trio.Event()
            while self._answers:
                await self._report(self._answers.pop(0))


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """Return the exceptions of a group, however deep it is nested."""
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
