"""`ChainService` over a `FakeCoordinator`: the same commands, inputs and signatures, without a chain."""

from __future__ import annotations

import math
from collections import deque

import trio

from node.chain.contract.reader import DONE, Outcome
from node.chain.contract.swarm import Voter, ascending, classify, millionths, own_ballot, protection_record
from node.chain.contract.swarm import commitment as commitment_of
from node.chain.relay.signatures import is_signed, own_delegation
from node.chain.relay.signer import MessageSigner
from node.chain.service import ChainIdentity
from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    CommitVote,
    RegisterNode,
    RelayMessages,
    RenewDelegation,
    ReportReward,
    RevealVote,
    VoteCommand,
)
from node.machine.inputs import (
    AnyInput,
    ChainLost,
    ChainRestored,
    DelegationRead,
    FundsChanged,
    PauseChanged,
    PeerRegistered,
    TransactionSettled,
)
from node.machine.transaction_keys import TransactionKey
from node.ports.service import Report
from node.ports.votes import VoteGuard
from protocols.delegation import renews
from protocols.deployment import CoordinatorFacts, NodeEntry
from protocols.identifiers import Address, keccak256, swarm_id
from protocols.signed_messages import (
    RelayedMessage,
    SignedCommitment,
    SignedDelegation,
    SignedMessage,
    SignedRevocation,
    SignedReward,
    SignedVote,
    VoteReveal,
)
from protocols.voting import vote_salt
from tests.support.fake_coordinator import FakeCoordinator, RevertedError

RETRY_SECONDS = 0.5


class FakeChainService:
    """One node's view of a coordinator. `relays` says whether it has funds for others; `cut` takes the chain away."""

    name = "chain"

    def __init__(
        self, coordinator: FakeCoordinator, identity: ChainIdentity, guard: VoteGuard, *, relays: bool = False
    ) -> None:
        self._coordinator, self._identity, self._guard, self._relays = coordinator, identity, guard, relays
        self._delegation = identity.delegation
        self._signer: MessageSigner | None = None
        self._queue: dict[TransactionKey, ChainCommand] = {}
        self._settled: dict[TransactionKey, TransactionSettled] = {}
        self._heard: deque[AnyInput] = deque()
        self._reported = DelegationRead(0)
        self._wake = trio.Event()
        self._is_away = False
        self._is_running = False

    # --- what is asked of it --------------------------------------------------------------------------------------

    @property
    def delegation(self) -> SignedDelegation | None:
        """See `node.ports.chain.ChainService`."""
        return self._delegation

    @property
    def register_entry(self) -> NodeEntry | None:
        """See `node.ports.chain.ChainService`."""
        return self._coordinator.register.get(self._identity.address) if self._is_running else None

    def join(self, facts: CoordinatorFacts, delegation: SignedDelegation | None) -> None:
        """See `node.ports.chain.ChainService`."""
        self._delegation = delegation
        self._signer = MessageSigner(self._identity.account, facts.domain, self._voter(), self._guard)
        self._report_delegation()

    def signed_messages(self, commands: tuple[ChainCommand, ...]) -> tuple[SignedMessage, ...]:
        """See `node.ports.chain.ChainService`."""
        return self._signer.messages(commands) if self._signer else ()

    def registration(self) -> SignedDelegation | None:
        """See `node.ports.chain.ChainService`."""
        return self._signer.delegation if self._signer else None

    async def read_facts(self) -> CoordinatorFacts:
        """See `node.ports.chain.ChainService`."""
        return self._coordinator.facts

    async def read_owner(self) -> Address | None:
        """See `node.ports.chain.ChainService`."""
        entry = self._coordinator.register.get(self._identity.address)
        return entry.owner if entry else None

    async def read_bootnodes(self) -> tuple[str, ...]:
        """See `node.ports.chain.ChainService`."""
        return self._coordinator.bootnodes

    async def execute(self, command: ChainCommand) -> None:
        """See `node.ports.service.Service`."""
        done = self._settled.get(command.key)
        if done is not None and done.ok:
            self._heard.append(done)
        else:
            self._queue[command.key] = command
        self._wake.set()

    async def run(self, report: Report) -> None:
        """See `node.ports.service.Service`."""
        self._coordinator.watchers.append(self._hear)
        self._is_running = True
        try:
            self.mend()
            while True:
                self._wake = trio.Event()
                self._send_all()
                while self._heard:
                    await report(self._heard.popleft())
                with trio.move_on_after(RETRY_SECONDS if self._queue and not self._is_away else math.inf):
                    await self._wake.wait()
        finally:
            self._is_running = False
            self._coordinator.watchers.remove(self._hear)

    # --- the connection -------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Lose the chain: nothing is heard or sent until `mend`."""
        self._is_away = True
        self._heard.append(ChainLost("cut off"))
        self._wake.set()

    def mend(self) -> None:
        """Have the chain back: what stands is reported again, as after a (re)connection."""
        self._is_away = False
        chain = self._coordinator
        self._heard.append(ChainRestored(0.0))
        self._heard.extend(PeerRegistered(node, entry.since, entry.owner) for node, entry in chain.register.items())
        self._heard.append(chain.stage)
        if chain.paused_until > chain.now():
            self._heard.append(
                PauseChanged(chain.stage.round, chain.stage.stage, chain.paused_until, chain.stage.deadline)
            )
        self._heard.append(FundsChanged(self._relays))
        self._reported = DelegationRead(0)
        self._report_delegation()

    def _hear(self, event: AnyInput) -> None:
        if not self._is_away:
            self._heard.append(event)
            self._report_delegation()

    def _report_delegation(self) -> None:
        entry, signed = self.register_entry, self._delegation
        if entry is not None:
            is_renewal = signed is not None and renews(signed.delegation, entry.serial, entry.expiry)
            found = DelegationRead(entry.expiry, signed.serial if signed is not None and is_renewal else 0)
            if found != self._reported:
                self._reported = found
                self._heard.append(found)
        self._wake.set()

    # --- commands -------------------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        for key, command in [] if self._is_away else list(self._queue.items()):
            outcome = self._outcome(command)
            if outcome is not None:
                del self._queue[key]
                name = "0x" + keccak256(str(key).encode() + self._identity.secret).hex() if outcome.ok else ""
                self._settled[key] = TransactionSettled(key, outcome.ok, name, outcome.error)
                self._heard.append(self._settled[key])

    def _outcome(self, command: ChainCommand) -> Outcome | None:
        """Return how a command ended, None where it is to be tried again."""
        if isinstance(command, VoteCommand | ReportReward):
            if command.seed != self._coordinator.seed_of(command.round):
                return Outcome(ok=False, error="SeedChanged")
            if self._is_on_chain(command):
                return DONE
            if command.after > self._coordinator.now():
                return None
        if isinstance(command, VoteCommand):
            kind, payload = protection_record(command, self._voter())
            if not self._guard.admit(kind, command.round, command.seed, payload):
                return Outcome(ok=False, error="VoteProtected")
        try:
            self._transact(command)
        except RevertedError as reverted:
            verdict = classify(command, reverted.revert)
            failed = Outcome(ok=False, error=reverted.revert.name)
            return None if verdict in ("retry", "wait") else DONE if verdict == "done" else failed
        return DONE

    def _is_on_chain(self, command: VoteCommand | ReportReward) -> bool:
        me, chain = self._identity.address, self._coordinator
        if isinstance(command, ReportReward):
            return chain.has_reward(me, command.round, command.stage)
        state, kept = chain.ballot(me, command.round)
        least, own = own_ballot(command, self._voter())
        return state >= least and kept == own

    def _transact(self, command: ChainCommand) -> None:
        chain, voter = self._coordinator, self._voter()
        match command:
            case RegisterNode() | RenewDelegation():
                assert voter.delegation
                chain.delegate(voter.delegation.delegation)
            case AdvanceStage():
                if (chain.stage.round, chain.stage.stage) == (command.round, command.stage):
                    chain.advance()
            case CommitVote():
                chain.commit(voter.address, command.round, commitment_of(command, voter))
            case RevealVote():
                salt = vote_salt(voter.secret, voter.swarm, command.seed)
                chain.reveal(voter.address, command.round, tuple(ascending(command.winners)), salt)
            case CastVote():
                chain.vote(voter.address, command.round, tuple(ascending(command.winners)))
            case ReportReward():
                chain.report(voter.address, command.round, command.stage, millionths(command.reward))
            case RelayMessages():
                for relayed in command.messages:
                    if is_signed(chain.facts.domain, relayed, command.seed):
                        self._relay(relayed)

    def _relay(self, relayed: RelayedMessage) -> None:
        """Submit a message of another node; as in the contract's batches, a bad one sinks no other."""
        chain, node = self._coordinator, relayed.peer
        try:
            match relayed.message:
                case SignedDelegation() as message:
                    chain.delegate(message.delegation)
                case SignedRevocation() as message:
                    chain.revoke(message.revocation)
                case SignedCommitment() as message:
                    chain.commit(node, message.round, message.commitment)
                case VoteReveal() as message:
                    chain.reveal(node, message.round, message.winners, message.salt)
                case SignedVote() as message:
                    chain.vote(node, message.round, message.winners)
                case SignedReward() as message:
                    chain.report(node, message.round, message.stage, message.reward)
        except RevertedError:
            return

    def _voter(self) -> Voter:
        identity, facts = self._identity, self._coordinator.facts
        swarm = swarm_id(facts.chain_id, facts.contract, facts.deployment_block_hash)
        own = own_delegation(facts.domain, identity.account, self._coordinator.now() * 1000)
        return Voter(identity.address, identity.secret, swarm, self._delegation or own)
