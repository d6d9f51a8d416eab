"""Whole nodes of the built-in model against RL Swarm's interface, a stage manager turning its clock."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from contracts import contract_at, send
from node.identity import load_or_create
from node.identity.rsa import RsaIdentity
from node.localnet.demo_plan import DemoOptions, demo_plan, node_config
from node.localnet.demo_watch import NodeReader
from node.localnet.local_chain import LocalChain
from node.localnet.local_swarm import ENVIRONMENT, SWARM
from node.localnet.processes import ManagedProcess, end_all
from node.localnet.toml import toml_text
from node.machine.status import Status
from protocols.manifest import Manifest, VotingSpec
from tests.support.rsa_keys import stored
from tools.stage_manager import ARTIFACT, deploy_rl_swarm

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

SECONDS = 240.0
STAGE = 4
ROUNDS = 3
WARM_STEPS = 100


class Place:
    """A chain, a contract of 0.6.0, and the processes of a swarm."""

    def __init__(self, chain: LocalChain, home: Path) -> None:
        self.chain, self.home = chain, home
        self.children: list[ManagedProcess] = []
        self.key = chain.keys[0]
        self.contract = deploy_rl_swarm(chain.url, self.key, "0.6.0")
        self.plan = demo_plan(DemoOptions(peers=2, seconds=STAGE, warmup_steps=WARM_STEPS))
        self.manifest = replace(self.plan.manifest, voting=VotingSpec(mode="open", winners=1))

    def start(self, name: str, *command: str) -> ManagedProcess:
        child = ManagedProcess(name, command, self.home / f"{name}.log", ENVIRONMENT)
        self.children.append(child)
        return child

    def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            for child in self.children:
                assert child.exit_code in (None, 0), (child.name, child.last_words())
            assert time.monotonic() < deadline, {child.name: child.last_words() for child in self.children}
            time.sleep(0.2)

    def start_bootnode(self) -> None:
        """Start one and name it in the contract, beside one that nobody can dial."""
        home = self.home / "bootnode"
        self.start("boot", *SWARM, "bootnode", "--data-dir", str(home), "--listen", "/ip4/127.0.0.1/tcp/0")
        self.until((home / "bootnode.json").exists)
        (address,) = msgspec.json.decode((home / "bootnode.json").read_bytes())["addresses"]
        told = ["/ip4/192.0.2.7/udp/1/quic", address]
        send(self.chain.url, self.key, self.contract, "addBootnodes", told, artifact=ARTIFACT)

    def import_identity(self, number: int) -> str:
        """Give a node the key file of a peer of RL Swarm's own; return its peer id."""
        file = self.home / "old-swarm.pem"
        file.write_bytes(content := stored())
        file.chmod(0o400)
        home = self.directory(number)
        home.mkdir(mode=0o700)
        subprocess.run([*SWARM, "keys", "import", str(file), "--data-dir", str(home)], env=ENVIRONMENT, check=True)
        return RsaIdentity(content).peer_id

    def start_node(self, number: int, model: Path, manifest: Manifest) -> ManagedProcess:
        home = self.directory(number)
        home.mkdir(mode=0o700, exist_ok=True)
        config = node_config(self.plan.nodes[number], chain=self.chain.url, contract=self.contract, model=str(model))
        (home / "swarm.toml").write_text(toml_text(config))
        (home / "manifest.toml").write_text(toml_text(manifest))
        self.chain.fund(load_or_create(home / "swarm.pem").address)
        return self.start(f"node-{number}", *SWARM, "run", "--data-dir", str(home))

    def start_manager(self) -> None:
        key = self.home / "manager.key"
        key.write_text(self.key)
        options = ["--url", self.chain.http_url, "--contract", self.contract, "--seconds", str(STAGE)]
        self.start("manager", sys.executable, "-m", "tools.stage_manager", *options, "--key-file", str(key))

    def directory(self, number: int) -> Path:
        return self.home / f"node-{number}"

    def events(self, name: str) -> list[Any]:
        contract = contract_at(self.chain.url, self.contract, ARTIFACT)
        return list(contract.events[name]().get_logs(from_block=0))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with LocalChain(block_seconds=1, accounts=2) as chain:
        place = Place(chain, tmp_path)
        try:
            yield place
        finally:
            end_all(place.children)


def test_two_nodes_play_rounds_of_rl_swarms_contract(place: Place) -> None:
    """They find the interface, each other and the rounds; train on each other's rollouts, vote once a round, report.

    One of them comes from RL Swarm: it registers with its old peer id, under which the other votes for it. A manifest
    with sealed votes is refused at the start, in one line.
    """
    model = place.home / "builtin"
    command = [
        sys.executable,
        "-m",
        "node.trainer.engines.builtin.sft_warmup",
        "--out",
        str(model),
        "--steps",
        str(WARM_STEPS),
    ]
    warm = place.start("warm", *command)
    place.start_bootnode()
    sealed = place.start_node(1, model, replace(place.manifest, voting=VotingSpec(mode="sealed")))
    place.children.remove(sealed)
    assert sealed.wait(SECONDS) == 4
    assert "open votes only" in sealed.last_words()
    (place.directory(1) / "manifest.toml").write_text(toml_text(place.manifest))
    place.until(lambda: warm.exit_code == 0)
    old = place.import_identity(0)
    place.start_node(0, model, place.manifest)
    place.start("node-1", *SWARM, "run", "--data-dir", str(place.directory(1)))
    place.until(lambda: len(place.events("PeerRegistered")) == 2)
    place.start_manager()
    reader = NodeReader()

    def played() -> bool:
        seen: list[Status | None] = [reader.status(place.directory(number)) for number in (0, 1)]
        return all(one is not None and one.totals.votes >= ROUNDS and one.totals.external_groups for one in seen)

    place.until(played)
    reader.close()
    votes = Counter((vote.args.roundNumber, vote.args.peerId) for vote in place.events("WinnerSubmitted"))
    assert set(votes.values()) == {1}
    ids = {old, load_or_create(place.directory(1) / "swarm.pem").peer_id}
    assert {peer for _, peer in votes} == ids
    chosen = {(vote.args.peerId, *vote.args.winners) for vote in place.events("WinnerSubmitted")}
    assert chosen == set(permutations(ids))
    assert {reward.args.peerId for reward in place.events("RewardSubmitted")} == ids
    told = {line["event"]: line for line in map(json.loads, (place.home / "node-0.log").read_text().splitlines())}
    assert told["chain.bound"]["binding"] == "rl-swarm"
    assert {"chain.manifest_unbound", "chain.bootnode_skipped"} <= told.keys()
