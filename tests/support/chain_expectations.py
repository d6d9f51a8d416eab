"""What holds of any `node.ports.chain.ChainService`: the real one on a local chain, and the fake.

A test module subclasses `ChainExpectations` and gives the fixture `chain`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from node.machine.commands import (
    AdvanceStage,
    ChainCommand,
    CommitVote,
    RegisterNode,
    RelayMessages,
    ReportReward,
    RevealVote,
)
from node.machine.inputs import AnyInput, ChainRestored, DelegationRead, PauseChanged, PeerRegistered, StageOpened
from node.machine.inputs import TransactionSettled as Settled
from node.ports.chain import ChainService
from protocols.delegation import FOR_EVER
from protocols.identifiers import Address
from protocols.signed_messages import RelayedMessage, SignedCommitment, SignedDelegation, SignedReward, topic_of

InputT = TypeVar("InputT", bound=AnyInput)


class ChainUnderTest(Protocol):
    """A running service that has joined, its organiser, and another node's keys. Stages: two a round, votes sealed."""

    service: ChainService
    me: Address
    inputs: list[AnyInput]
    may_sign: bool

    async def until(
        self, kind: type[InputT], fits: Callable[[InputT], bool] = lambda _: True, since: int = 0
    ) -> InputT:
        """Return the first such input among those reported from number `since` on; wait for it."""

    def pass_deadline(self) -> None:
        """Let chain time pass the stage's deadline."""

    def advance(self) -> None:
        """Somebody else opens the next stage, after its deadline."""

    def pause(self, seconds: int) -> None:
        """The organiser pauses the swarm."""

    def resume(self) -> None:
        """The organiser ends the pause."""

    def other(self) -> SignedDelegation:
        """Return another node's registration, of which it is its own owner."""


async def settled(chain: ChainUnderTest, command: ChainCommand) -> Settled:
    """Give a command; return how it ended."""
    since = len(chain.inputs)
    await chain.service.execute(command)
    return await chain.until(Settled, lambda one: one.key == command.key, since)


async def relayed(chain: ChainUnderTest, message: SignedDelegation, turn: int = 0) -> Settled:
    """Relay another node's registration."""
    batch = (RelayedMessage(message.node, message),)
    return await settled(chain, RelayMessages(topic_of(message), 0, 0, bytes(32), turn, batch))


async def opened(chain: ChainUnderTest, round_number: int, stage: int) -> StageOpened:
    """Advance to a stage; return it as reported."""
    while True:
        last = [one for one in chain.inputs if isinstance(one, StageOpened)]
        if last and (last[-1].round, last[-1].stage) == (round_number, stage):
            return last[-1]
        since = len(chain.inputs)
        chain.advance()
        await chain.until(StageOpened, since=since)


class ChainExpectations:
    """The expectations, a sentence each."""

    async def test_it_reports_the_present_when_it_connects(self, chain: ChainUnderTest) -> None:
        """First that the chain is there, then the open stage."""
        first = await chain.until(StageOpened)
        assert isinstance(chain.inputs[0], ChainRestored)
        assert (first.round, first.stage, first.deadline - first.opened) == (0, 0, 60)
        facts = await chain.service.read_facts()
        assert (facts.stage_seconds, facts.voting_mode, facts.has_owners) == ((60, 60), "sealed", True)

    async def test_a_registration_is_settled_and_reported(self, chain: ChainUnderTest) -> None:
        """It counts from the next round on; asked again, the answer is the same."""
        assert await chain.service.read_owner() is None
        done = await settled(chain, RegisterNode())
        assert done.ok
        assert await chain.until(PeerRegistered) == PeerRegistered(chain.me, 1, chain.me)
        assert await settled(chain, RegisterNode()) == done
        assert await chain.service.read_owner() == chain.me
        assert (await chain.until(DelegationRead, lambda one: one.expiry > 0)).expiry == FOR_EVER
        entry = chain.service.register_entry
        assert entry is not None
        assert (entry.owner, entry.since) == (chain.me, 1)

    async def test_another_nodes_registration_is_relayed(self, chain: ChainUnderTest) -> None:
        """A second time nothing is left to submit, which is no failure."""
        message = chain.other()
        assert (await relayed(chain, message)).ok
        assert await chain.until(PeerRegistered) == PeerRegistered(message.node, 1, message.node)
        assert (await relayed(chain, message, turn=1)).ok

    async def test_a_stage_ends_with_its_deadline(self, chain: ChainUnderTest) -> None:
        """A command to open the next one waits for that; where somebody else was faster it is done."""
        await chain.until(StageOpened)
        await chain.service.execute(AdvanceStage(0, 0))
        chain.pass_deadline()
        assert (await chain.until(Settled)).ok
        assert (await chain.until(StageOpened, lambda one: one.stage == 1)).round == 0
        await opened(chain, 1, 0)
        assert (await settled(chain, AdvanceStage(0, 1))).ok

    async def test_a_vote_is_committed_and_revealed(self, chain: ChainUnderTest) -> None:
        """Each in its window; the same vote again is done already, one under another seed never will be."""
        vote = await self.votable(chain)
        assert (await settled(chain, vote)).ok
        assert (await settled(chain, CommitVote(1, b"x" * 32, vote.winners))).error == "SeedChanged"
        await opened(chain, 2, 1)
        reveal = RevealVote(1, vote.seed, vote.winners)
        assert (await settled(chain, reveal)).ok
        assert (await settled(chain, reveal)).ok

    async def test_a_vote_that_the_protection_forbids_is_not_sent(self, chain: ChainUnderTest) -> None:
        """Nor signed for others to send."""
        vote = await self.votable(chain)
        chain.may_sign = False
        assert (await settled(chain, vote)).error == "VoteProtected"
        assert chain.service.signed_messages((vote,)) == ()

    async def test_a_reward_is_reported_once(self, chain: ChainUnderTest) -> None:
        """A stage that is not open yet has none; a node that does not count has none either."""
        await settled(chain, RegisterNode())
        first = await opened(chain, 0, 0)
        assert (await settled(chain, ReportReward(0, 0, first.seed, 0.5))).error == "NotCounted"
        now = await opened(chain, 1, 0)
        assert (await settled(chain, ReportReward(1, 0, now.seed, 0.5))).ok

    async def test_messages_are_signed_for_others_to_submit(self, chain: ChainUnderTest) -> None:
        """Votes and rewards of this node, and the delegation with which it can be registered."""
        vote = CommitVote(1, bytes(32), (chain.other().node,))
        commit, reward = chain.service.signed_messages((vote, ReportReward(1, 0, bytes(32), 0.5)))
        assert isinstance(commit, SignedCommitment)
        assert isinstance(reward, SignedReward)
        assert (commit.round, reward.reward) == (1, 500_000)
        registration = chain.service.registration()
        assert registration is not None
        assert (registration.owner, registration.node) == (chain.me, chain.me)

    async def test_a_pause_moves_the_deadline_and_is_waited_out(self, chain: ChainUnderTest) -> None:
        """What the pause refuses is done once it is over."""
        await settled(chain, RegisterNode())
        now = await opened(chain, 1, 0)
        chain.pause(3600)
        paused = await chain.until(PauseChanged)
        assert (paused.round, paused.stage, paused.deadline) == (1, 0, now.deadline + 3600)
        since = len(chain.inputs)
        reward = ReportReward(1, 0, now.seed, 0.5)
        await chain.service.execute(reward)
        chain.resume()
        over = await chain.until(PauseChanged, since=since)
        assert paused.deadline - over.deadline == paused.until - over.until
        assert (await chain.until(Settled, lambda one: one.key == reward.key, since)).ok

    async def votable(self, chain: ChainUnderTest) -> CommitVote:
        """Register both nodes and play on until their first round is voted on; return a vote for the other."""
        other = chain.other()
        await settled(chain, RegisterNode())
        await relayed(chain, other)
        first = await opened(chain, 1, 0)
        await opened(chain, 2, 0)
        return CommitVote(1, first.seed, (other.node,))
