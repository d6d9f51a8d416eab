"""A coordinator in memory, with the same rules as the contract and the same service before it.

For the simulator and for tests: time comes from the clock given, each transaction is mined at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import trio

from node.chain.contract.abi import Revert
from node.chain.contract.swarm import (
    COMMITTED,
    KEPT_BYTES,
    VOTED,
    CoordinatorFacts,
    Voter,
    ascending,
    commitment,
    guarded,
    key_of,
    millionths,
    own_ballot,
    packed,
    verdict,
)
from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    CommitVote,
    RegisterNode,
    ReportReward,
    RevealVote,
)
from node.machine.inputs import AnyInput, ChainLost, ChainRestored, PeerRegistered, StageOpened, TransactionSettled
from node.ports import Report, VoteGuard
from protocols.identifiers import Address, Digest, Seed, keccak256, swarm_id
from protocols.schedule import commit_step, reveal_step, step_number

CHAIN_ID = 31337
CONTRACT = "0x" + "c0" * 20
TOO_EARLY_PAUSE = 0.5


class RefusedError(Exception):
    """The fake's form of a revert; `revert` names the contract's error."""

    def __init__(self, name: str, **fields: object) -> None:
        super().__init__(name)
        self.revert = Revert(name, fields)


class Vote(msgspec.Struct, frozen=True):
    """A counted vote, as the `VotesCounted` event has it."""

    round: int
    voter: Address
    winners: tuple[Address, ...]


class FakeCoordinator:
    """The contract's rules over a clock (Unix seconds). `votes` and `rewards` are what its events would tell."""

    def __init__(
        self,
        *,
        stage_seconds: Sequence[int],
        manifest_digest: Digest,
        clock: Callable[[], float],
        voting_mode: str = "sealed",
        max_winners: int = 5,
        bootnodes: tuple[str, ...] = (),
        anchor_seconds: float | None = None,
        entropy: bytes = b"",
    ) -> None:
        self.stage_seconds, self.voting_mode, self.max_winners = tuple(stage_seconds), voting_mode, max_winners
        self.manifest_digest, self.bootnodes = manifest_digest, bootnodes
        self.votes: list[Vote] = []
        self.rewards: dict[tuple[Address, int, int], int] = {}
        self.peers: dict[Address, int] = {}
        self.watchers: list[FakeChainService] = []
        self.facts = CoordinatorFacts(
            chain_id=CHAIN_ID,
            contract=CONTRACT,
            deployment_block=1,
            deployment_block_hash=keccak256(b"fake/deployment" + entropy),
            manifest_digest=manifest_digest,
            stage_seconds=self.stage_seconds,
            voting_mode=voting_mode,
        )
        self._clock = clock
        self._entropy = entropy
        self._anchor_seconds = self.stage_seconds[-1] / 2 if anchor_seconds is None else anchor_seconds
        self._ballots: dict[Address, dict[int, tuple[int, bytes]]] = {}
        self._block = 1
        self._stage = self._opened(0, 0)

    @property
    def stage(self) -> StageOpened:
        """The present stage."""
        return self._stage

    @property
    def stages(self) -> int:
        """The number of stages in a round."""
        return len(self.stage_seconds)

    def seed_of(self, round_number: int) -> Seed:
        """Return a round's seed."""
        return keccak256(b"fake/seed" + self._entropy + round_number.to_bytes(8, "big"))

    def ballot_of(self, peer: Address, round_number: int) -> tuple[int, bytes]:
        """Return the state (0 none, 1 committed, 2 voted) of a vote, and what is kept of its commitment."""
        return self._ballots.get(peer, {}).get(round_number, (0, bytes(KEPT_BYTES)))

    # --- transactions -------------------------------------------------------------------------------------------

    def register(self, sender: Address) -> None:
        """See the contract. Raises `RefusedError`, as all transactions do."""
        _demand(sender not in self.peers, "OldSerial")
        stage = self._stage
        anchored = stage.stage == self.stages - 1 and self._clock() >= stage.opened + self._anchor_seconds
        self.peers[sender] = stage.round + (2 if anchored else 1)
        self._tell(PeerRegistered(sender, self.peers[sender]))

    def advance(self) -> None:
        """Open the next stage."""
        now, stage = int(self._clock()), self._stage
        _demand(now >= stage.deadline, "TooEarly", time=now, deadline=stage.deadline)
        last = stage.stage == self.stages - 1
        self._stage = self._opened(stage.round + 1, 0) if last else self._opened(stage.round, stage.stage + 1)
        self._tell(self._stage)

    def commit_vote(self, sender: Address, round_number: int, sealed: bytes) -> None:
        """Commit to a vote."""
        self._open_ballot(sender, round_number, "sealed")
        self._keep(sender, round_number, COMMITTED, sealed)

    def reveal_vote(self, sender: Address, round_number: int, winners: Sequence[Address], sealed: bytes) -> None:
        """Reveal a vote whose commitment is `sealed`."""
        _demand(self.voting_mode == "sealed", "WrongMode")
        self._must_be_step(reveal_step(round_number, self.stages))
        state, known = self.ballot_of(sender, round_number)
        _demand(state != 0, "NotCommitted", round=round_number, node=sender)
        _demand(state != VOTED, "AlreadyVoted", round=round_number, node=sender)
        _demand(known == sealed[:KEPT_BYTES], "BadReveal", round=round_number, node=sender)
        self._count(sender, round_number, winners, known)

    def submit_winners(self, sender: Address, round_number: int, winners: Sequence[Address]) -> None:
        """Vote in the open mode."""
        self._open_ballot(sender, round_number, "open")
        self._count(sender, round_number, winners, keccak256(packed(winners)))

    def submit_reward(self, sender: Address, round_number: int, stage: int, reward: int) -> None:
        """Publish the sender's own reward, in millionths."""
        now = self._stage
        _demand(now.round - 1 <= round_number <= now.round, "WrongRound", given=round_number, current=now.round)
        newest = now.stage if round_number == now.round else self.stages - 1
        _demand(stage <= newest, "WrongStage", given=stage, current=newest)
        self._must_count(sender, round_number)
        _demand((sender, round_number, stage) not in self.rewards, "RewardAlreadySubmitted")
        self.rewards[sender, round_number, stage] = reward

    # --- rules --------------------------------------------------------------------------------------------------

    def _opened(self, round_number: int, stage: int) -> StageOpened:
        self._block += 1
        now = int(self._clock())
        seed = self.seed_of(round_number)
        return StageOpened(round_number, stage, seed, now + self.stage_seconds[stage], now, self._block)

    def _open_ballot(self, sender: Address, round_number: int, mode: str) -> None:
        _demand(self.voting_mode == mode, "WrongMode")
        self._must_be_step(commit_step(round_number, self.stages))
        self._must_count(sender, round_number)
        _demand(self.ballot_of(sender, round_number)[0] == 0, "AlreadyVoted", round=round_number, node=sender)

    def _must_be_step(self, expected: int) -> None:
        current = step_number(self._stage.round, self._stage.stage, self.stages)
        _demand(current == expected, "WrongStep", current=current, expected=expected)

    def _must_count(self, peer: Address, round_number: int) -> None:
        _demand(peer in self.peers, "NotRegistered", node=peer)
        _demand(self.peers[peer] <= round_number, "NotCounted", node=peer)

    def _count(self, sender: Address, round_number: int, winners: Sequence[Address], sealed: bytes) -> None:
        _demand(0 < len(winners) <= self.max_winners, "WinnersOutOfBounds", given=len(winners), max=self.max_winners)
        _demand(list(winners) == sorted(set(winners)), "WinnersNotAscending")
        _demand(sender not in winners, "SelfVote", node=sender)
        for winner in winners:
            self._must_count(winner, round_number)
        self._keep(sender, round_number, VOTED, sealed)
        self.votes.append(Vote(round_number, sender, tuple(winners)))

    def _keep(self, sender: Address, round_number: int, state: int, sealed: bytes) -> None:
        ballots = self._ballots.get(sender, {})
        recent = {number: ballot for number, ballot in ballots.items() if number >= round_number - 1}
        self._ballots[sender] = recent | {round_number: (state, sealed[:KEPT_BYTES])}

    def _tell(self, event: AnyInput) -> None:
        for watcher in self.watchers:
            watcher.hear(event)


class FakeChainService:
    """One node's view of a `FakeCoordinator` (`node.ports.ChainService`). `away` cuts it off until it is set back."""

    name = "chain"

    def __init__(self, coordinator: FakeCoordinator, address: Address, guard: VoteGuard, secret: bytes) -> None:
        self._coordinator, self._guard = coordinator, guard
        facts = coordinator.facts
        swarm = swarm_id(facts.chain_id, facts.contract, facts.deployment_block_hash)
        self._voter = Voter(address, secret, swarm)
        self._queue: dict[str, ChainCommand] = {}
        self._settled: dict[str, TransactionSettled] = {}
        self._heard: deque[AnyInput] = deque()
        self._wake = trio.Event()
        self._away = False

    async def describe(self) -> CoordinatorFacts:
        """Return what the coordinator fixed."""
        return self._coordinator.facts

    async def bootnodes(self) -> tuple[str, ...]:
        """Return the coordinator's bootnodes."""
        return self._coordinator.bootnodes

    async def execute(self, command: ChainCommand) -> None:
        """See `node.ports.Service`."""
        key = key_of(command)
        done = self._settled.get(key)
        if done is not None and done.ok:
            self.hear(done)
        else:
            self._queue[key] = command
            self._wake.set()

    async def run(self, report: Report) -> None:
        """See `node.ports.Service`."""
        self._coordinator.watchers.append(self)
        try:
            self._connected()
            while True:
                self._wake = trio.Event()
                if not self._away:
                    self._send_all()
                while self._heard:
                    await report(self._heard.popleft())
                with trio.move_on_after(TOO_EARLY_PAUSE if self._queue and not self._away else math.inf):
                    await self._wake.wait()
        finally:
            self._coordinator.watchers.remove(self)

    def hear(self, event: AnyInput) -> None:
        """Take what the coordinator tells everybody."""
        if not self._away or isinstance(event, TransactionSettled):
            self._heard.append(event)
        self._wake.set()

    def cut(self) -> None:
        """Lose the chain: nothing is heard or sent until `mend`."""
        self._away = True
        self._heard.append(ChainLost("cut off"))
        self._wake.set()

    def mend(self) -> None:
        """Have the chain back."""
        self._away = False
        self._connected()

    def _connected(self) -> None:
        self._heard.append(ChainRestored(0.0))
        self._heard.extend(PeerRegistered(peer, since) for peer, since in self._coordinator.peers.items())
        self._heard.append(self._coordinator.stage)
        self._wake.set()

    def _send_all(self) -> None:
        for key, command in list(self._queue.items()):
            error = self._send(command)
            if error == "TooEarly":
                continue
            del self._queue[key]
            name = "0x" + keccak256(key.encode() + bytes.fromhex(self._voter.address[2:])).hex()
            self._settled[key] = TransactionSettled(key, not error, "" if error else name, error)
            self._heard.append(self._settled[key])

    def _send(self, command: ChainCommand) -> str:
        """Carry a command out; return the name of the error, empty where it is done."""
        if isinstance(command, CommitVote | RevealVote | CastVote):
            kind, payload = guarded(command, self._voter)
            if not self._guard.admit(kind, command.round, command.seed, payload):
                return "VoteProtected"
            if command.seed != self._coordinator.seed_of(command.round):
                return "SeedChanged"
        try:
            self._transact(command)
        except RefusedError as refused:
            return "" if self._is_done(command, refused.revert) else refused.revert.name
        return ""

    def _is_done(self, command: ChainCommand, revert: Revert) -> bool:
        if revert.name == "AlreadyVoted" and isinstance(command, CommitVote | RevealVote | CastVote):
            least, own = own_ballot(command, self._voter)
            state, found = self._coordinator.ballot_of(self._voter.address, command.round)
            return state >= least and found == own
        return verdict(command, revert) == "done"

    def _transact(self, command: ChainCommand) -> None:
        chain, me = self._coordinator, self._voter.address
        match command:
            case RegisterNode():
                chain.register(me)
            case AdvanceStage():
                if (chain.stage.round, chain.stage.stage) == (command.round, command.stage):
                    chain.advance()
            case CommitVote():
                chain.commit_vote(me, command.round, commitment(command, self._voter))
            case RevealVote():
                sealed = commitment(command, self._voter)
                chain.reveal_vote(me, command.round, ascending(command.winners), sealed)
            case CastVote():
                chain.submit_winners(me, command.round, ascending(command.winners))
            case ReportReward():
                chain.submit_reward(me, command.round, command.stage, millionths(command.reward))


def _demand(holds: bool, name: str, **fields: object) -> None:
    if not holds:
        raise RefusedError(name, **fields)
