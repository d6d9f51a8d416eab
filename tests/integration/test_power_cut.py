"""A node that loses its journal after it has announced makes no second body: its peers see no equivocation."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocols.manifest import DataSpec, GameSpec, Limits, Manifest, StageSpec, VotingSpec
from tests.integration.small_swarm import Member, SmallSwarm

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

STAGE_SECONDS = 20
"""A node is back within its stage, also on a busy machine; where it is not, it is killed again."""
TRIES = 6
MANIFEST = Manifest(
    name="power cut",
    data=DataSpec(held_out=4),
    game=GameSpec(num_prompts=3, min_prompts=2, num_generations=4, local_groups=4, external_groups=4),
    stages=(StageSpec(name="play", seconds=STAGE_SECONDS),),
    voting=VotingSpec(mode="sealed", winners=1, minimum_groups=1),
    limits=Limits(turn_seconds=1),
)


def cut_power(member: Member) -> None:
    """Kill a node after it has announced, take its journal, and have its model make other bodies from now on."""
    member.arm("after PublishRollouts")
    assert member.died(6.0 * STAGE_SECONDS)
    for path in member.home.glob("journal.sqlite*"):
        path.unlink()
    (member.home / "skill").write_text("0.95")
    member.disarm()
    member.start()


def test_a_node_that_lost_its_journal_announces_the_first_body_again(tmp_path: Path) -> None:
    """It generates nothing for the stage, and the other node never sees two bodies of it."""
    with SmallSwarm(MANIFEST, tmp_path, (0.02, 0.02)) as swarm:
        watching, cut = swarm.members
        for member in swarm.members:
            member.start()
        assert swarm.wait(6.0 * STAGE_SECONDS, lambda: bool(cut.events("rollouts.publishing")))
        for _ in range(TRIES):
            cut_power(cut)
            before = len(cut.events("rollouts.publishing"))
            assert swarm.wait(6.0 * STAGE_SECONDS, lambda: len(cut.events("rollouts.publishing")) > before)  # noqa: B023
            if cut.events("rollouts.announced_before"):
                break
        again = cut.events("rollouts.announced_before")
        bodies = {(each["round"], each["body"]) for each in cut.events("rollouts.publishing")}
        assert again
        assert len({number for number, _ in bodies}) == len(bodies)
        assert swarm.wait(3.0 * STAGE_SECONDS, lambda: swarm.is_current(cut))
        assert not cut.events("gossip.own_equivocation_refused")
        assert 'reason="equivocation"' not in watching.metrics()
