"""A node whose disk has no room for bodies keeps its network, its trainer and its votes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocols.manifest import DataSpec, GameSpec, Limits, Manifest, StageSpec, VotingSpec
from tests.integration.small_swarm import SmallSwarm
from tests.support.small_disk import on_small_disk

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

STAGE_SECONDS = 4
ROUNDS = 10
PAGE_KIB = 4
"""Room for one body: what a stage has beyond the first one is not kept."""
MANIFEST = Manifest(
    name="small disk",
    data=DataSpec(held_out=4),
    game=GameSpec(num_prompts=3, min_prompts=2, num_generations=4, local_groups=4, external_groups=4),
    stages=(StageSpec(name="play", seconds=STAGE_SECONDS),),
    voting=VotingSpec(mode="sealed", winners=2, minimum_groups=1),
    limits=Limits(inline=16, turn_seconds=1),
)


def test_a_node_without_room_for_bodies_votes_on(tmp_path: Path) -> None:
    """Neither its network nor its trainer is restarted, it votes, and its operator is told, but not of every body."""
    with SmallSwarm(MANIFEST, tmp_path, (0.02, 0.02, 0.02)) as swarm:
        short = swarm.members[-1]
        (short.home / "bodies").mkdir()
        short.inside = tuple(on_small_disk(short.home / "bodies", PAGE_KIB))
        for member in swarm.members:
            member.start()
        assert swarm.wait(40.0 * STAGE_SECONDS, lambda: swarm.round() >= ROUNDS)
        assert swarm.wait(25.0 * STAGE_SECONDS, lambda: len(swarm.rounds_voted(short.address)) >= 3)
        metrics, voted = short.metrics(), swarm.rounds_voted(short.address)
    assert max(voted.values()) == 1
    assert (short.events("service.failed"), short.events("trainer.lost")) == ([], [])
    assert 'swarm_service_up{service="network"} 1.0' in metrics
    assert 'swarm_service_up{service="trainer"} 1.0' in metrics
    told = short.events("bodies.disk_failed")
    assert {each["level"] for each in told} == {"warning"}
    (not_kept,) = re.findall(r'swarm_body_store_total\{event="not_kept"\} (\d+)', metrics)
    assert len(told) < int(not_kept)
