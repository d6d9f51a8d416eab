"""A node killed before or after any of its side effects comes back into its round and never votes twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Literal, get_args

import msgspec
import pytest

from node.machine.commands import AnyCommand
from node.store.restore_mark import mark
from protocols.manifest import DataSpec, GameSpec, Limits, Manifest, StageSpec, VotingSpec
from tests.integration.small_swarm import Member, SmallSwarm

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

STAGE_SECONDS = 4
PATIENCE = 90.0
"""Seconds that a command may let itself be waited for."""

BACK_SECONDS = 60.0
"""Seconds that a restarted node may take to be in the contract's round."""

ONLY_RENEWED = ("RenewDelegation",)
"""What only a node does whose owner has signed anew: test_relay.py has some."""
COMMANDS = sorted({command.__name__ for command in get_args(AnyCommand)} - {*ONLY_RENEWED})
ONLY_OPEN = ("CastVote",)
"""What only a swarm that votes openly does."""
BY_TURNS = ("AdvanceStage",)
"""What is done by whoever's turn comes first: of nine nodes one may wait for it in vain, of two it can't."""
IN_THE_OPEN_SWARM = (*ONLY_OPEN, *BY_TURNS)
ONLY_SLOW = ("AbortWork",)
"""What only a node that is too slow does."""
ONLY_RESTORED = ("EndDoppelgangerProtection",)
"""What only a node with a restored identity does."""
ONCE = ("IntroduceNode", "RegisterNode")
"""What a node does once, at its beginning."""
ON_REQUEST = ("StopNode",)
"""What a node does when it is told to."""

STEADY = 0.02
TOO_SLOW = 2.0
"""Seconds per group: far within a stage of two groups, and far beyond it."""


class Case(msgspec.Struct, frozen=True):
    """One crash: when, and of which command."""

    when: str
    command: str

    def __str__(self) -> str:
        return f"{self.when} {self.command}"


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a crash."""

    died: bool = False
    back: bool = False


CASES = [Case(when, command) for command in COMMANDS for when in ("before", "after")]


def manifest(mode: Literal["sealed", "open"]) -> Manifest:
    """Return a swarm of short rounds whose bodies are all fetched (none is small enough to travel inline)."""
    return Manifest(
        name="crashes",
        data=DataSpec(held_out=4),
        game=GameSpec(num_prompts=3, min_prompts=2, num_generations=4, local_groups=4, external_groups=4),
        stages=(StageSpec(name="play", seconds=STAGE_SECONDS),),
        voting=VotingSpec(mode=mode, winners=2, minimum_groups=1),
        limits=Limits(inline=16, turn_seconds=1),
        evaluate_every=1,
    )


class Campaign:
    """Crashes the members of a swarm one case after the other, every member in a thread of its own."""

    def __init__(self, swarm: SmallSwarm) -> None:
        self.swarm = swarm
        self.outcomes: dict[Case, Outcome] = {}
        self._threads: list[threading.Thread] = []

    def begin(self, member: Member, cases: list[Case]) -> None:
        """Start a member, which dies in every case in turn and lives afterwards."""
        thread = threading.Thread(target=self._crash_all, args=(member, cases), name=str(member.home))
        self._threads.append(thread)
        thread.start()

    def finish(self) -> None:
        """Wait for every case, then for two rounds without a crash."""
        for thread in self._threads:
            thread.join()
        last = self.swarm.round()
        self.swarm.wait(PATIENCE, lambda: self.swarm.round() >= last + 4)

    def _crash_all(self, member: Member, cases: list[Case]) -> None:
        for case in cases:
            self.outcomes[case] = self._crash(member, case)
        if member.process is None:
            member.start()

    def _crash(self, member: Member, case: Case) -> Outcome:
        outcome = Outcome()
        member.arm(str(case))
        if member.process is None:
            member.start()
        if case.command in ON_REQUEST:
            assert member.process is not None
            member.process.terminate()
        outcome.died = member.died(PATIENCE)
        member.disarm()
        member.end()
        member.start()
        outcome.back = self.swarm.wait(BACK_SECONDS, lambda: self.swarm.is_current(member))
        return outcome


def dealt(cases: list[Case], hands: int) -> list[list[Case]]:
    """Deal cases to members; what happens once in a node's life comes first in each hand."""
    ordered = sorted(cases, key=lambda case: case.command not in ONCE)
    return [ordered[hand::hands] for hand in range(hands)]


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Campaign, Campaign]]:
    """Two swarms after all their crashes: one that votes sealed, one that votes openly."""
    special = (*IN_THE_OPEN_SWARM, *ONLY_SLOW, *ONLY_RESTORED)
    common = [case for case in CASES if case.command not in special]
    sealed = SmallSwarm(
        manifest("sealed"), tmp_path_factory.mktemp("sealed"), (STEADY,) * 5 + (TOO_SLOW,) * 2 + (STEADY,) * 2
    )
    openly = SmallSwarm(manifest("open"), tmp_path_factory.mktemp("open"), (STEADY,) * 2)
    with sealed, openly:
        both = Campaign(sealed), Campaign(openly)
        both[0].begin(sealed.members[0], [])
        hands = dealt(common, 4)
        hands += dealt([case for case in CASES if case.command in ONLY_SLOW], 2)
        hands += dealt([case for case in CASES if case.command in ONLY_RESTORED], 2)
        for member in sealed.members[-2:]:
            mark(member.home, "this test")
        for member, hand in zip(sealed.members[1:], hands, strict=True):
            both[0].begin(member, hand)
        both[1].begin(openly.members[0], [])
        both[1].begin(openly.members[1], [case for case in CASES if case.command in IN_THE_OPEN_SWARM])
        for campaign in both:
            campaign.finish()
        yield both


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_killed_node_is_back_in_its_round(case: Case, campaigns: tuple[Campaign, Campaign]) -> None:
    """Killed before or after a side effect and started again, a node is where the contract is."""
    outcome = campaigns[case.command in IN_THE_OPEN_SWARM].outcomes[case]
    assert outcome.died, "the node never came to this command"
    assert outcome.back


@pytest.mark.parametrize("which", [0, 1], ids=["sealed", "open"])
def test_nobody_votes_twice(which: int, campaigns: tuple[Campaign, Campaign]) -> None:
    """Whatever crashed when, no round holds two votes of a node, and no vote was sent in vain."""
    swarm = campaigns[which].swarm
    for member in swarm.members:
        assert max(swarm.rounds_voted(member.address).values(), default=0) <= 1
        assert swarm.failed_transactions(member.address) == []


@pytest.mark.parametrize("which", [0, 1], ids=["sealed", "open"])
def test_everybody_votes_again_after_the_last_crash(which: int, campaigns: tuple[Campaign, Campaign]) -> None:
    """A node that is fast enough to have rollouts votes in the rounds after its last crash."""
    swarm = campaigns[which].swarm
    steady = [member for member in swarm.members if "slowdown = 2.0" not in (member.home / "swarm.toml").read_text()]
    last = max(max(swarm.rounds_voted(member.address), default=-1) for member in swarm.members)
    for member in steady:
        assert max(swarm.rounds_voted(member.address), default=-1) >= last - 1
