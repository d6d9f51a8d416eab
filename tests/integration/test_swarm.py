"""A whole swarm as the demo starts it (real chain, nodes, trainers), with its parts killed while it learns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.exits import Exit
from node.localnet.demo_plan import BLOCK_SECONDS, FIRST_ROUND, DemoOptions, demo_plan
from node.localnet.demo_watch import Snapshot
from node.localnet.local_chain import LocalChain
from node.localnet.local_swarm import ENVIRONMENT, SWARM, LocalSwarm
from node.machine.status import Status

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

PEERS, STAGE_SECONDS = 3, 5
PATIENCE = 90.0
AWAY_SECONDS = 30.0


class Watch:
    """A running swarm and the means to wait for it."""

    def __init__(self, network: LocalSwarm, chain: LocalChain) -> None:
        self.network, self.chain = network, chain

    def until(self, holds: Callable[[Snapshot], bool]) -> Snapshot:
        """Return the first snapshot that is as wanted."""
        limit = time.monotonic() + PATIENCE
        while not holds(snapshot := self.network.look()):
            assert time.monotonic() < limit, [seen.status and seen.status.note for seen in snapshot.sightings]
            time.sleep(0.3)
        return snapshot

    def until_round(self, number: int) -> Snapshot:
        """Return the first snapshot in which every node is in that round, or beyond."""
        return self.until(lambda seen: all(status.round >= number for status in statuses(seen)))


def statuses(snapshot: Snapshot) -> list[Status]:
    """Return what the nodes say; nothing at all while one has never answered."""
    known = [seen.status for seen in snapshot.sightings if seen.status]
    return known if len(known) == PEERS else []


def everybody(holds: Callable[[Status], bool]) -> Callable[[Snapshot], bool]:
    """Return whether all nodes are as wanted."""
    return lambda snapshot: bool(statuses(snapshot)) and all(holds(status) for status in statuses(snapshot))


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """A swarm in its third round of work, on a chain that keeps its state on disk."""
    home: Path = tmp_path_factory.mktemp("swarm")
    plan = demo_plan(DemoOptions(peers=PEERS, rounds=100, seconds=STAGE_SECONDS, warmup_steps=200))
    chain = LocalChain(block_seconds=BLOCK_SECONDS, state=home / "chain.json")
    with LocalSwarm(plan, home / "run", chain=chain) as network:
        network.start(lambda _: None)
        found = Watch(network, chain)
        found.until(everybody(lambda status: status.round >= FIRST_ROUND + 2))
        yield found


def test_a_killed_node_goes_on_from_its_checkpoint(watch: Watch) -> None:
    """kill -9 of a node ends its trainer too; restarted, it works and votes on, its updates not forgotten."""
    before = watch.until(everybody(lambda status: status.totals.updates >= 2))
    updates = statuses(before)[0].totals.updates
    now = before.round
    watch.network.kill_node(1)
    after = watch.until_round(now + 3)
    me = statuses(after)[0]
    assert me.totals.updates >= updates
    last = max(vote.round for vote in me.votes)
    assert last >= now


def test_a_copy_of_a_running_node_ends_by_itself(watch: Watch, tmp_path: Path) -> None:
    """Started beside its original it registers, works and votes for nothing, hears itself, and says so by its code.

    The original is not disturbed.
    """
    original, copy = watch.network.home / "node-2", tmp_path / "copy"
    shutil.copytree(original, copy)
    command = [*SWARM, "run", "--data-dir", str(copy), "--log-format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=os.environ | ENVIRONMENT)
    assert ended.returncode == Exit.DOPPELGANGER, ended.stderr
    assert "another node runs with this key" in ended.stderr
    events = {json.loads(line)["event"] for line in ended.stdout.splitlines()}
    assert events.isdisjoint({"rollouts.publishing", "vote.committing", "vote.casting", "stage.advancing"})
    now = watch.network.look().round
    watch.until(everybody(lambda status: status.round >= now + 2))
    assert [vote for vote in statuses(watch.network.look())[1].votes if vote.round >= now - 1]


def test_nothing_is_lost_while_the_chain_is_away(watch: Watch) -> None:
    """Killed for 30 s, the chain finds all nodes again, and every vote under way before stands on it."""
    before = watch.network.look()
    planned = {
        (vote.round, status.address) for status in statuses(before) for vote in status.votes if vote.phase != "failed"
    }
    failed = [status.totals.votes_failed for status in statuses(before)]
    watch.chain.kill()
    time.sleep(AWAY_SECONDS)
    watch.chain.start()
    after = watch.until(everybody(lambda status: status.chain == "present" and status.round >= before.round + 4))
    assert planned
    assert planned <= {(vote.round, vote.voter) for vote in after.votes}
    assert [status.totals.votes_failed for status in statuses(after)] == failed
