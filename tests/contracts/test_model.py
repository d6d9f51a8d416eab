"""The contract against a model of it in Python: random histories, every refusal and every event predicted.

The model knows only the rules: who counts, which windows are open, what stands already. After each step the contract
must say of every node and ballot what the model says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from node.chain.relay.batch_calls import (
    commitments_call,
    registrations_call,
    reveals_call,
    revocations_call,
    rewards_call,
    votes_call,
)
from node.localnet.local_chain import LocalChain
from protocols.schedule import commit_step, reveal_step, step_number
from protocols.signed_messages import SignedCommitment, SignedReward, SignedVote, VoteReveal
from protocols.tally import Voted
from protocols.typed_data import Commitment, Reward, Vote
from protocols.voting import vote_commitment
from tests.contracts.conftest import Refused, Swarm, parameters, skipped, votes_in

pytestmark = pytest.mark.integration

NODES, COUNTED, OWNERS, STRANGER = range(1, 8), range(1, 6), (20, 21), 30
SALT = b"s" * 32
MOST = 3

nodes = st.sampled_from(NODES)
people = st.sampled_from([*NODES, STRANGER])
sound = st.sets(st.sampled_from(COUNTED), min_size=1, max_size=MOST)
choices = st.lists(
    st.tuples(people, sound | sound | st.sets(people, min_size=0, max_size=MOST + 1)), min_size=1, max_size=8
)
shifts = st.sampled_from([0, 0, 0, 0, -1, 1])
"""How far from the round whose window is open."""


@dataclass
class Node:
    owner: int
    since: int
    expiry: float


@dataclass
class Model:
    """What the contract should know."""

    register: dict[int, Node] = field(default_factory=dict)
    states: dict[tuple[int, int], int] = field(default_factory=dict)
    committed: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    rewards: set[tuple[int, int, int]] = field(default_factory=set)
    counted: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)

    def standing(self, node: int, said: int, now: int) -> str:
        """Return why a node may not speak on a round, empty where it may."""
        known = self.register.get(node)
        if known is None:
            return "NotRegistered"
        if known.since > said:
            return "NotCounted"
        return "DelegationOver" if known.expiry <= now else ""

    def winners(self, said: int, winners: tuple[int, ...]) -> str:
        """Return why winners can't be taken."""
        if not 0 < len(winners) <= MOST:
            return "WinnersOutOfBounds"
        known = [self.register.get(winner) for winner in winners]
        return "" if all(one and one.since <= said for one in known) else "WinnerNotCounted"

    def enter(self, node: int, said: int, now: int, state: int) -> str:
        """Commit or vote; return why not."""
        reason = self.standing(node, said, now)
        if not reason and self.states.get((node, said)):
            reason = "AlreadyVoted"
        if not reason:
            self.states[node, said] = state
        return reason

    def vote(self, node: int, said: int, now: int, winners: tuple[int, ...]) -> str:
        """Vote in the open mode."""
        reason = (
            self.winners(said, winners) or ("SelfVote" if node in winners else "") or self.enter(node, said, now, 2)
        )
        if not reason:
            self.counted[node, said] = winners
        return reason

    def reveal(self, node: int, said: int, now: int, winners: tuple[int, ...]) -> str:
        """Reveal."""
        reason = self.winners(said, winners)
        if not reason:
            state = self.states.get((node, said), 0)
            reason = {0: "NotCommitted", 2: "AlreadyVoted"}.get(state, "")
        if not reason and self.register[node].expiry <= now:
            reason = "DelegationOver"
        if not reason and self.committed[node, said] != winners:
            reason = "BadReveal"
        if not reason and node in winners:
            reason = "SelfVote"
        if not reason:
            self.states[node, said] = 2
            self.counted[node, said] = winners
        return reason

    def reward(self, node: int, said: int, stage: int, now: int) -> str:
        """Report."""
        reason = self.standing(node, said, now)
        if not reason and (node, said, stage) in self.rewards:
            reason = "RewardAlreadySubmitted"
        if not reason:
            self.rewards.add((node, said, stage))
        return reason


class History:
    """A deployed swarm and its model, and what may happen to both."""

    def __init__(self, chain: LocalChain, stages: int, mode: str) -> None:
        self.stages, self.mode = stages, mode
        self.swarm = Swarm(chain, parameters(stages=stages, mode=mode, winners=MOST))
        self.model = Model()
        self.heard: list[Voted] = []
        self.swarm.submit(registrations_call([self.swarm.delegation(node, OWNERS[0]) for node in COUNTED]))
        for node in COUNTED:
            self.model.register[node] = Node(OWNERS[0], self.since(node), float("inf"))
        for _ in range(3):
            self.swarm.next_round()

    # --- steps --------------------------------------------------------------------------------------------------

    def delegate(self, node: int, owner: int, seconds: int) -> None:
        expiry = self.swarm.now() + seconds
        refused = self.refused(registrations_call([self.swarm.delegation(node, owner, expiry)]))
        known = self.model.register.get(node)
        assert refused == (known is not None and known.owner != owner)
        if not refused:
            since = known.since if known else self.since(node)
            self.model.register[node] = Node(owner, since, expiry)

    def revoke(self, node: int, owner: int) -> None:
        refused = self.refused(revocations_call([self.swarm.revocation(node, owner)]))
        known = self.model.register.get(node)
        assert refused == (known is None or known.owner != owner)
        if known and not refused:
            known.expiry = 0

    def advance(self) -> None:
        self.swarm.next_stage()

    def commit_or_vote(self, shift: int, entries: list[tuple[int, set[int]]]) -> None:
        """Vote on a round, its window open or not."""
        said = self.round - 1 + shift
        seed = self.swarm.view("seedOf", said)
        signed: list[Any] = []
        for node, few in entries:
            winners = self.named(few)
            if self.mode == "open":
                vote = Vote(said, seed, winners)
                signed.append(SignedVote.of(vote, self.swarm.sign(node, vote)))
            else:
                made = vote_commitment(said, seed, self.swarm.accounts[node], winners, SALT)
                message = Commitment(said, seed, made)
                signed.append(SignedCommitment.of(message, self.swarm.sign(node, message)))
        data = votes_call(said, signed) if self.mode == "open" else commitments_call(said, signed)
        if self.step != commit_step(said, self.stages):
            assert self.refused(data)
            return
        self.submitted(data, [self.entered(node, said, few) for node, few in entries])

    def reveal(self, shift: int, entries: list[tuple[int, set[int]]], honest: bool) -> None:
        """Reveal what was committed, and anything else beside it."""
        said = self.round - (2 if self.stages == 1 else 1) + shift
        if honest:
            mine = [(node, set(few)) for (node, one), few in self.model.committed.items() if one == said]
            entries = [*entries, *mine, *mine[:1]]
        reveals = [(self.swarm.accounts[node], VoteReveal(said, self.named(few), SALT)) for node, few in entries]
        data = reveals_call(said, reveals)
        if self.mode == "open" or self.step != reveal_step(said, self.stages):
            assert self.refused(data)
            return
        now = self.swarm.now() + 1
        self.submitted(data, [self.model.reveal(node, said, now, self.order(few)) for node, few in entries])

    def a_round(self, entries: list[tuple[int, set[int]]], more: list[tuple[int, set[int]]], lost: int | None) -> None:
        """What should happen in a round; between vote and reveal a node may be revoked."""
        self.advance()
        while self.step % self.stages:
            self.advance()
        self.commit_or_vote(0, entries)
        if lost is not None:
            self.revoke(lost, OWNERS[0])
        if self.mode == "sealed":
            self.advance()
            self.reveal(0, more, True)

    def report(self, back: int, stage: int, reporters: list[int]) -> None:
        said = max(0, self.round - back)
        message = Reward(said, stage, self.swarm.view("seedOf", said), 7)
        data = rewards_call(
            said, stage, [SignedReward.of(message, self.swarm.sign(node, message)) for node in reporters]
        )
        newest = self.step - step_number(said, 0, self.stages)
        if (back > 1 and said < self.round - 1) or stage >= self.stages or stage > newest:
            assert self.refused(data)
            return
        now = self.swarm.now() + 1
        self.submitted(data, [self.model.reward(node, said, stage, now) for node in reporters])

    # --- what must hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Compare all that the contract tells."""
        self.the_register_is_the_models()
        self.the_ballots_are_the_models()
        self.every_vote_was_told_once()

    def the_register_is_the_models(self) -> None:
        for node in NODES:
            owner, since, expiry, _ = self.swarm.view("nodes", self.swarm.accounts[node])
            known = self.model.register.get(node)
            assert (since != 0) == (known is not None)
            if known:
                assert (owner, since) == (self.swarm.accounts[known.owner], known.since)
                assert (expiry > self.swarm.now()) == (known.expiry > self.swarm.now())
        assert self.swarm.view("registeredCount") == len(self.model.register)

    def the_ballots_are_the_models(self) -> None:
        said = self.round - 1
        if said >= 0:
            states, _ = self.swarm.view("ballotsOf", [self.swarm.accounts[node] for node in NODES], said)
            assert list(states) == [self.model.states.get((node, said), 0) for node in NODES]

    def every_vote_was_told_once(self) -> None:
        told = {(vote.voter, vote.round): vote.winners for vote in self.heard}
        assert len(told) == len(self.heard)
        accounts = self.swarm.accounts
        assert told == {
            (accounts[node], said): self.named(set(few)) for (node, said), few in self.model.counted.items()
        }

    # --- between them -------------------------------------------------------------------------------------------

    @property
    def round(self) -> int:
        return int(self.swarm.view("current")[0])

    @property
    def step(self) -> int:
        return self.swarm.step(self.stages)

    def since(self, node: int) -> int:
        """Return what the contract said: in the last stage it depends on the block, which the clock's tests cover."""
        since = int(self.swarm.view("nodes", self.swarm.accounts[node])[1])
        assert since - self.round in (1, 2)
        return since

    def order(self, few: set[int]) -> tuple[int, ...]:
        return tuple(sorted(few, key=lambda number: self.swarm.accounts[number]))

    def named(self, few: set[int]) -> tuple[str, ...]:
        return tuple(self.swarm.accounts[number] for number in self.order(few))

    def entered(self, node: int, said: int, few: set[int]) -> str:
        now, winners = self.swarm.now() + 1, self.order(few)
        if self.mode == "open":
            return self.model.vote(node, said, now, winners)
        reason = self.model.enter(node, said, now, 1)
        if not reason:
            self.model.committed[node, said] = winners
        return reason

    def refused(self, data: str) -> bool:
        try:
            self.swarm.submit(data)
        except Refused:
            return True
        return False

    def submitted(self, data: str, reasons: list[str]) -> None:
        """Submit a batch; the contract must say of each entry what the model says."""
        if all(reasons):
            assert self.refused(data)
            return
        events = self.swarm.submit(data)
        assert skipped(events) == {place: reason for place, reason in enumerate(reasons) if reason}
        said = [event.fields["round"] for event in events if event.name == "VotesCounted"]
        self.heard += [Voted(said[0], voter, winners) for voter, winners in votes_in(events).items()]


steps = st.one_of(
    st.tuples(st.just("a_round"), choices, choices, st.none() | nodes),
    st.tuples(st.just("a_round"), choices, choices, st.none() | nodes),
    st.tuples(st.just("advance")),
    st.tuples(st.just("commit_or_vote"), shifts, choices),
    st.tuples(st.just("reveal"), shifts, choices, st.sampled_from([True, True, False])),
    st.tuples(st.just("report"), st.integers(0, 2), st.integers(0, 1), st.lists(people, min_size=1, max_size=4)),
    st.tuples(st.just("delegate"), nodes, st.sampled_from([OWNERS[0], *OWNERS]), st.sampled_from([100, 10**9])),
    st.tuples(st.just("revoke"), nodes, st.sampled_from(OWNERS)),
)


@settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.generate,),  # a failure is told as it came: making it shorter takes minutes
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(1, 2), st.sampled_from(["sealed", "open"]), st.lists(steps, min_size=8, max_size=16))
def test_the_contract_does_what_the_model_says(
    anvil: LocalChain, stages: int, mode: str, history: list[tuple[Any, ...]]
) -> None:
    """No history of registrations, revocations, time, votes and rewards, sound and not, tells them apart."""
    snapshot = anvil.call("evm_snapshot")
    try:
        swarm = History(anvil, stages, mode)
        for name, *arguments in history:
            getattr(swarm, name)(*arguments)
            swarm.check()
    finally:
        anvil.call("evm_revert", snapshot)
