"""The coordinator contract's rules in memory, over a given clock: each transaction is mined at once.

Signatures are checked by whoever calls. Not here: the anchor (a registration always counts from the next round on),
early closing, manifest changes and roles.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from node.chain.contract.abi import Revert
from node.chain.contract.swarm import COMMITTED, EMPTY, KEPT_BYTES, VOTED, packed
from node.machine.inputs import AnyInput, PauseChanged, PeerRegistered, StageOpened
from protocols.delegation import FOR_EVER
from protocols.deployment import CoordinatorFacts, NodeEntry
from protocols.identifiers import Address, Seed, keccak256
from protocols.manifest import Manifest, manifest_digest
from protocols.schedule import commit_step, reveal_step, step_number
from protocols.tally import Rewarded, Voted
from protocols.typed_data import Delegation, Revocation
from protocols.voting import vote_commitment

UNKNOWN = NodeEntry("0x" + "00" * 20, 0, 0, 0)
NO_BALLOT = (EMPTY, bytes(KEPT_BYTES))


class RevertedError(Exception):
    """A transaction was refused; `revert` names the contract's error."""

    def __init__(self, name: str, **fields: object) -> None:
        super().__init__(name)
        self.revert = Revert(name, fields)


class FakeCoordinator:
    """One deployment. `votes` and `rewards` are what its events would show; `watchers` get each event at once."""

    def __init__(self, manifest: Manifest, clock: Callable[[], float], bootnodes: tuple[str, ...] = ()) -> None:
        self.bootnodes = bootnodes
        self.watchers: list[Callable[[AnyInput], None]] = []
        self.register: dict[Address, NodeEntry] = {}
        self.votes: list[Voted] = []
        self.rewards: list[Rewarded] = []
        self.paused_until = 0
        self._voting, self._clock = manifest.voting, clock
        self.facts = CoordinatorFacts(
            chain_id=31337, contract="0x" + "c0" * 20, deployment_block=1, deployment_block_hash=keccak256(b"fake"),
            manifest_digest=manifest_digest(manifest), voting_mode=manifest.voting.mode, salt=keccak256(b"fake/salt"),
            stage_seconds=tuple(stage.seconds for stage in manifest.stages),
        )  # fmt: skip
        self._ballots: dict[tuple[Address, int], tuple[int, bytes]] = {}
        self.stage = self._opened(0, 0)

    # --- views --------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Return the chain's time."""
        return int(self._clock())

    def seed_of(self, round_number: int) -> Seed:
        """Return a round's seed."""
        return keccak256(b"fake/seed" + round_number.to_bytes(8, "big"))

    def ballot(self, node: Address, round_number: int) -> tuple[int, bytes]:
        """Return the state of a node's ballot, and what is kept of its commitment."""
        return self._ballots.get((node, round_number), NO_BALLOT)

    def has_reward(self, node: Address, round_number: int, stage: int) -> bool:
        """Return True if a node has reported a stage's reward."""
        return any((each.round, each.stage, each.node) == (round_number, stage, node) for each in self.rewards)

    # --- transactions: each raises `RevertedError` ----------------------------------------------------------------

    def delegate(self, said: Delegation) -> None:
        """Register a node, or renew its delegation."""
        entry = self.register.get(said.node, UNKNOWN)
        if not entry.since and self.now() < self.paused_until:
            raise RevertedError("RegistrationsPaused")
        self._require(said.expiry > self.now(), "DelegationOver")
        self._require(entry.owner in (UNKNOWN.owner, said.owner), "OtherOwner")
        self._require(said.serial > entry.serial, "OldSerial")
        since = entry.since or self.stage.round + 1
        self.register[said.node] = NodeEntry(said.owner, since, min(said.expiry, FOR_EVER), said.serial)
        self._emit(PeerRegistered(said.node, since, said.owner))

    def revoke(self, said: Revocation) -> None:
        """End a node's delegation."""
        entry = self.register.get(said.node, UNKNOWN)
        self._require(bool(entry.since), "NotRegistered")
        self._require(entry.owner == said.owner, "OtherOwner")
        self._require(said.serial > entry.serial, "OldSerial")
        self.register[said.node] = msgspec.structs.replace(entry, expiry=self.now(), serial=said.serial)

    def advance(self) -> None:
        """Open the next stage."""
        self._must_run()
        stage = self.stage
        self._require(self.now() >= stage.deadline, "TooEarly")
        is_last = stage.stage == self._stages - 1
        self.stage = self._opened(stage.round + is_last, 0 if is_last else stage.stage + 1)
        self._emit(self.stage)

    def commit(self, node: Address, round_number: int, commitment: bytes) -> None:
        """Commit to a vote."""
        self._must_be_votable(node, round_number, "sealed")
        self._ballots[node, round_number] = (COMMITTED, commitment[:KEPT_BYTES])

    def reveal(self, node: Address, round_number: int, winners: tuple[Address, ...], salt: bytes) -> None:
        """Reveal a committed vote."""
        self._must_run()
        self._must_be_step(reveal_step(round_number, self._stages))
        state, kept = self.ballot(node, round_number)
        self._require(state != EMPTY, "NotCommitted")
        self._require(state != VOTED, "AlreadyVoted")
        opened = vote_commitment(round_number, self.seed_of(round_number), node, winners, salt)
        self._require(kept == opened[:KEPT_BYTES], "BadReveal")
        self._count(node, round_number, winners, kept)

    def vote(self, node: Address, round_number: int, winners: tuple[Address, ...]) -> None:
        """Vote in the open mode."""
        self._must_be_votable(node, round_number, "open")
        self._count(node, round_number, winners, keccak256(packed(winners))[:KEPT_BYTES])

    def report(self, node: Address, round_number: int, stage: int, reward: int) -> None:
        """Take a node's own reward, in millionths."""
        self._must_run()
        now = self.stage
        self._require(now.round - 1 <= round_number <= now.round, "WrongRound", given=round_number, current=now.round)
        newest = now.stage if round_number == now.round else self._stages - 1
        self._require(stage <= newest, "WrongStage")
        self._must_count(node, round_number)
        self._require(not self.has_reward(node, round_number, stage), "RewardAlreadySubmitted")
        self.rewards.append(Rewarded(round_number, stage, node, reward))

    # --- the organiser's ----------------------------------------------------------------------------------------

    def pause(self, seconds: int) -> None:
        """Stop everything but renewals and revocations; the open stage keeps the time that it has left."""
        self.paused_until = self.now() + seconds
        self._set_deadline(self.stage.deadline + (seconds if self.now() < self.stage.deadline else 0))

    def resume(self) -> None:
        """End the pause before its time."""
        left = self.paused_until - self.now()
        self.paused_until = self.now()
        self._set_deadline(self.stage.deadline - left)

    # --- rules --------------------------------------------------------------------------------------------------

    @property
    def _stages(self) -> int:
        return len(self.facts.stage_seconds)

    def _opened(self, round_number: int, stage: int) -> StageOpened:
        now = self.now()
        block = step_number(round_number, stage, self._stages) + 1
        return StageOpened(
            round_number, stage, self.seed_of(round_number), now + self.facts.stage_seconds[stage], now, block
        )

    def _set_deadline(self, deadline: int) -> None:
        self.stage = msgspec.structs.replace(self.stage, deadline=deadline)
        self._emit(PauseChanged(self.stage.round, self.stage.stage, self.paused_until, deadline))

    def _must_run(self) -> None:
        self._require(self.now() >= self.paused_until, "Paused")

    def _must_be_step(self, expected: int) -> None:
        current = step_number(self.stage.round, self.stage.stage, self._stages)
        self._require(current == expected, "WrongStep", current=current, expected=expected)

    def _must_count(self, node: Address, round_number: int) -> None:
        entry = self.register.get(node, UNKNOWN)
        self._require(bool(entry.since), "NotRegistered")
        self._require(entry.since <= round_number, "NotCounted")
        self._require(entry.expiry > self.now(), "DelegationOver")

    def _must_be_votable(self, node: Address, round_number: int, mode: str) -> None:
        self._must_run()
        self._require(self._voting.mode == mode, "WrongMode")
        self._must_be_step(commit_step(round_number, self._stages))
        self._must_count(node, round_number)
        self._require(self.ballot(node, round_number)[0] == EMPTY, "AlreadyVoted")

    def _count(self, node: Address, round_number: int, winners: tuple[Address, ...], kept: bytes) -> None:
        self._require(0 < len(winners) <= self._voting.winners, "WinnersOutOfBounds")
        self._require(list(winners) == sorted(set(winners)), "WinnersNotAscending")
        self._require(node not in winners, "SelfVote")
        for winner in winners:
            self._must_count(winner, round_number)
        self._ballots[node, round_number] = (VOTED, kept)
        self.votes.append(Voted(round_number, node, winners))

    def _require(self, holds: bool, error: str, **fields: object) -> None:
        if not holds:
            raise RevertedError(error, **fields)

    def _emit(self, event: AnyInput) -> None:
        for hear in self.watchers:
            hear(event)
