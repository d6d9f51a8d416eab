"""The chain service: takes commands, signs this node's messages, and answers what others ask of the contract."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio
from eth_account.signers.local import LocalAccount

from node.chain.account_watch import AccountWatch
from node.chain.connection import ChainConnection
from node.chain.contract.swarm import Voter
from node.chain.contract_access import ContractAccess, Dial
from node.chain.readers.detection import ContractInterface
from node.chain.relay.batcher import Batcher
from node.chain.relay.relayer import Relayer
from node.chain.relay.signatures import own_delegation
from node.chain.relay.signer import MessageSigner
from node.chain.rpc.block_follower import BlockFollower
from node.chain.rpc.blocks import BlockAdded
from node.chain.rpc.client import RpcEndpoint, connect
from node.chain.transactions.chain_session import ChainSession
from node.chain.transactions.fees import GWEI
from node.chain.transactions.tx_manager import STUCK_SECONDS, SendingRules, TransactionManager
from node.chain.transactions.tx_queue import OutboxStore, QueuedTransaction, TransactionQueue
from node.config import ChainSettings
from node.exits import Exit, Refusal
from node.identity import NodeKey
from node.machine.commands import ChainCommand
from node.machine.inputs import TransactionSettled
from node.ports.chain import ChainUnavailableError
from node.ports.service import Report
from node.ports.votes import VoteGuard
from protocols.deployment import CoordinatorFacts, NodeEntry
from protocols.identifiers import Address, swarm_id
from protocols.manifest import Manifest
from protocols.signed_messages import SignedDelegation, SignedMessage

log = structlog.get_logger()


@dataclass(frozen=True)
class ChainIdentity:
    """Who this node is on chain: its account, and a peer id where that is not the account's key's own.

    `delegation` is the owner's; without one the node is its own owner.
    """

    account: LocalAccount = field(repr=False)
    peer_id: str = ""
    delegation: SignedDelegation | None = None

    @property
    def address(self) -> Address:
        """The account's address, in lower case."""
        return str(self.account.address).lower()

    @property
    def secret(self) -> bytes:
        """The 32 bytes from which the salts of sealed votes are derived."""
        return bytes(self.account.key)


class CoordinatorService:
    """The node's only way to the coordinator (`node.ports.chain.ChainService`).

    `outbox` holds commands from `execute` on until they are settled, over crashes. `guard` is asked before a vote is
    signed. `clock` gives Unix seconds, `dial` a connection.
    """

    name = "chain"

    def __init__(
        self,
        settings: ChainSettings,
        manifest: Manifest,
        identity: ChainIdentity,
        outbox: OutboxStore,
        guard: VoteGuard,
        *,
        clock: Callable[[], float] = time.time,
        dial: Dial = connect,
        stuck_seconds: float = STUCK_SECONDS,
    ) -> None:
        self._settings, self._identity, self._guard, self._clock = settings, identity, guard, clock
        self._peer_id = identity.peer_id or NodeKey(identity.secret).peer_id
        self._delegation = identity.delegation
        self._queue = TransactionQueue(outbox)
        self._signer: MessageSigner | None = None
        self._session: ChainSession | None = None
        self._bootnodes: tuple[str, ...] = ()
        self._report: Report
        self._answers: list[TransactionSettled] = []
        self._has_answers = trio.Event()
        seconds = [stage.seconds for stage in manifest.stages]
        self._access = ContractAccess(settings, identity.address, self._peer_id, seconds, dial)
        self._watch = AccountWatch(identity.address, settings, self._queue, clock, manifest.confirmations)
        rules = SendingRules(manifest.confirmations, round(settings.max_fee_gwei * GWEI), stuck_seconds)
        self._manager = TransactionManager(identity.account, self._queue, guard, self._settled, rules, clock)
        self._connection = ChainConnection(
            settings, manifest, self._access, self._queue, self._manager, self._block_added, clock
        )

    # --- commands -----------------------------------------------------------------------------------------------

    async def execute(self, command: ChainCommand) -> None:
        """Store a command, durably, and return. What was done already is answered again as it was.

        A command that failed before is tried anew: the simulation shows at no cost whether it fails again. One that
        waits takes its newest form: the time before which it is left to relayers may have changed.
        """
        known = self._queue.get(command.key)
        if known is not None and known.state == "settled" and known.ok:
            self._answers.append(known.report)
            self._has_answers.set()
        elif known is None or known.state != "sent":
            self._queue.put(QueuedTransaction(key=command.key, command=command))
            self._manager.wake()

    async def run(self, report: Report) -> None:
        """Follow and send until cancelled. See `node.ports.service.Service`."""
        self._report = report
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer)
            await self._connection.run(report, self._work)

    async def _answer(self) -> None:
        """Answer commands that had been settled before, with or without the chain."""
        while True:
            await self._has_answers.wait()
            self._has_answers = trio.Event()
            while self._answers:
                await self._report(self._answers.pop(0))

    async def _settled(self, settled: TransactionSettled) -> None:
        await self._report(settled)

    # --- this node's messages -----------------------------------------------------------------------------------

    @property
    def delegation(self) -> SignedDelegation | None:
        """See `node.ports.chain.ChainService`."""
        return self._delegation

    @property
    def register_entry(self) -> NodeEntry | None:
        """See `node.ports.chain.ChainService`."""
        return self._watch.register_entry

    def join(self, facts: CoordinatorFacts, delegation: SignedDelegation | None) -> None:
        """See `node.ports.chain.ChainService`."""
        self._delegation = delegation
        if not facts.has_owners:
            return
        voter = self._voter(facts)
        self._signer = MessageSigner(self._identity.account, facts.domain, voter, self._guard)
        self._watch.use_delegation(delegation)
        if self._session:
            self._session.voter = voter

    def signed_messages(self, commands: tuple[ChainCommand, ...]) -> tuple[SignedMessage, ...]:
        """See `node.ports.chain.ChainService`."""
        return self._signer.messages(commands) if self._signer else ()

    def registration(self) -> SignedDelegation | None:
        """See `node.ports.chain.ChainService`."""
        return self._signer.delegation if self._signer else None

    # --- the contract -------------------------------------------------------------------------------------------

    async def read_facts(self) -> CoordinatorFacts:
        """See `node.ports.chain.ChainService`. Raises `Refusal` where this node's identity is another account's."""
        facts = await self._access.ask(lambda reader: reader.facts())
        account = await self._access.ask(lambda reader: reader.account_of_peer_id())
        if account not in (None, self._identity.address):
            raise Refusal(
                Exit.IDENTITY,
                f"the peer id {self._peer_id} is registered to the account {account}, "
                f"not to this node's {self._identity.address}; start with that account's key, or with a new node key",
            )
        return facts

    async def read_owner(self) -> Address | None:
        """See `node.ports.chain.ChainService`."""
        try:
            return await self._access.ask(lambda reader: reader.owner_of(self._identity.address))
        except ChainUnavailableError as error:
            log.info("chain.owner_unread", reason=str(error))
            return None

    async def read_bootnodes(self) -> tuple[str, ...]:
        """See `node.ports.chain.ChainService`."""
        try:
            self._bootnodes = await self._access.ask(lambda reader: reader.bootnodes())
        except ChainUnavailableError as error:
            log.info("chain.bootnodes_unread", reason=str(error))
        return self._bootnodes

    # --- while connected ----------------------------------------------------------------------------------------

    async def _work(
        self, endpoint: RpcEndpoint, interface: ContractInterface, facts: CoordinatorFacts, follower: BlockFollower
    ) -> None:
        """Send over a connection, and watch this node's account, until cancelled."""
        reader, identity, signer = interface.reader(endpoint), self._identity, self._signer
        session = self._session = ChainSession(
            endpoint=endpoint,
            binding=interface.binding,
            reader=reader,
            sender=identity.account.address,
            contract=self._access.address,
            chain_id=facts.chain_id,
            voter=self._voter(facts),
        )
        async with trio.open_nursery() as nursery:
            if signer is not None and reader.relay is not None:
                batcher, budget = Batcher(reader.relay, facts.domain), self._settings.relay_gas_per_day
                session.relayer = Relayer(identity.address, batcher, signer, self._queue, budget)
                nursery.start_soon(self._watch.run, endpoint, reader.relay, follower, self._report)
            await self._manager.work(session)

    def _block_added(self, block: BlockAdded) -> None:
        """Look at the account again where a log names this node."""
        if self._watch.is_named(block.logs):
            self._watch.wake()

    def _voter(self, facts: CoordinatorFacts) -> Voter:
        identity = self._identity
        swarm = swarm_id(facts.chain_id, facts.contract, facts.deployment_block_hash)
        delegation = self._delegation or own_delegation(facts.domain, identity.account, int(self._clock() * 1000))
        return Voter(identity.address, identity.secret, swarm, delegation)
