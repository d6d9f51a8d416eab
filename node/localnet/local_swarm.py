"""The demo's swarm as processes: chain, contract, bootnode, and nodes with their own data directories."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from contracts import Parameters, deploy, send
from node.identity import load_or_create, name_of
from node.localnet.demo_plan import BLOCK_SECONDS, DemoPlan, NodePlan, node_config
from node.localnet.demo_watch import NodeReader, Sighting, Snapshot, VoteReader, WatchedPeer, seen
from node.localnet.local_chain import LocalChain
from node.localnet.npm_tools import ToolMissingError
from node.localnet.processes import DemoError, ManagedProcess, end_all, memory_of, process_tree
from node.localnet.toml import toml_text
from node.trainer.evaluation import Evaluation
from protocols.manifest import manifest_digest

Progress = Callable[[str], None]

SWARM = (sys.executable, "-m", "node.cli")
"""The command line `swarm` of this very installation."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""One thread per process: on a busy machine two are several times slower."""

FUNDS = 100
"""Ether per node: each pays for its own transactions."""

MODEL_SECONDS = 1200.0
BOOTNODE_SECONDS = 60.0
REHEARSAL_SECONDS = 300.0
DRAIN_SECONDS = 30.0
"""How long nodes may take to stop after the end of the stage."""


class LocalSwarm:
    """A running swarm. Use it as a context manager: every process is ended, whatever happens."""

    def __init__(
        self,
        plan: DemoPlan,
        home: Path,
        *,
        builtin: Path | None = None,
        keys: Path | None = None,
        chain: LocalChain | None = None,
    ) -> None:
        """Take the plan and an empty directory; `builtin` is the built-in model, created there if
        None.

        `keys` are the node keys of an earlier swarm, so that the same peers play again. The swarm takes over `chain`,
        which is not started yet; None means a chain that keeps nothing.
        """
        self.plan, self.home, self._keys = plan, home, keys
        self.builtin = builtin or home / "builtin-model"
        self.contract = ""
        self.peers: tuple[WatchedPeer, ...] = ()
        self._chain = chain or LocalChain(block_seconds=BLOCK_SECONDS)
        self._children: list[ManagedProcess] = []
        self._nodes: dict[int, ManagedProcess] = {}
        self._reader = NodeReader()
        self._votes: VoteReader | None = None
        self._snapshot = Snapshot(at=time.time(), sightings=())

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        try:
            end_all(self._children)
        finally:
            self._chain.stop()
            self._reader.close()

    # --- beginning ----------------------------------------------------------------------------------------------

    def start(self, report: Progress) -> None:
        """Start everything. Raises `DemoError`."""
        made = self._build_model()
        report("starting a local chain (anvil) and deploying the coordinator contract")
        self._start_chain()
        report("starting a bootnode")
        self._start_bootnode()
        if made is not None:
            self._wait_for_model(made, report)
        self.peers = tuple(self._prepare(node) for node in self.plan.nodes)
        self._snapshot = Snapshot(at=time.time(), sightings=tuple(Sighting(peer=peer) for peer in self.peers))
        for node in self.plan.nodes:
            self._start_node(node.number)
        report(f"{len(self._nodes)} nodes are starting: {', '.join(peer.name for peer in self.peers)}")

    def kill_node(self, number: int) -> None:
        """Kill a node (SIGKILL) and start it again on the same data directory."""
        child = self._nodes[number]
        child.kill_group()
        self._children.remove(child)
        self._start_node(number)

    def _start_node(self, number: int) -> None:
        command = [*SWARM, "run", "--data-dir", str(self._directory(number))]
        self._nodes[number] = self._spawn(f"node {number}", command)

    def _build_model(self) -> ManagedProcess | None:
        if self.builtin.exists() or self.plan.model:
            return None
        command = [sys.executable, "-m", "node.trainer.engines.builtin.sft_warmup", "--out", str(self.builtin)]
        command += ["--seed", str(self.plan.seed), "--warmup", self.plan.warmup]
        command += ["--sparse"] if self.plan.sparse else []
        command += ["--steps", str(self.plan.warmup_steps)] if self.plan.warmup_steps else []
        return self._spawn("model warm-up", command)

    def _wait_for_model(self, child: ManagedProcess, report: Progress) -> None:
        """Wait for the SFT warm-up and report its progress."""
        deadline = time.monotonic() + MODEL_SECONDS
        reported = ""
        while child.wait(1.0) is None:
            words = child.last_words()
            if words.startswith("step") and words != reported:
                reported = words
                report(f"training the built-in model on one core: {words}")
            if time.monotonic() > deadline:
                raise DemoError(f"the SFT warm-up takes longer than {MODEL_SECONDS:.0f} s; is the machine busy?")
        if child.exit_code:
            raise DemoError(f"the SFT warm-up failed: {child.last_words()}")
        self._children.remove(child)

    def _start_chain(self) -> None:
        manifest = self.plan.manifest
        try:
            self._chain.start()
        except ToolMissingError as error:
            raise DemoError(str(error)) from error
        terms = Parameters(
            stage_seconds=tuple(stage.seconds for stage in manifest.stages),
            manifest_digest=manifest_digest(manifest),
            voting_mode=manifest.voting.mode,
            winners=manifest.voting.winners,
            quorum=manifest.voting.quorum,
            earliest=manifest.voting.earliest,
            block_seconds=BLOCK_SECONDS,
        )
        self.contract = deploy(self._chain.url, self._chain.keys[0], terms).address
        self._votes = VoteReader(self._chain.url, self.contract)

    def _start_bootnode(self) -> None:
        """Start the bootnode and enter it in the contract, where every node looks."""
        home = self.home / "bootnode"
        home.mkdir()
        child = self._spawn(
            "bootnode", [*SWARM, "bootnode", "--data-dir", str(home), "--listen", "/ip4/127.0.0.1/tcp/0"]
        )
        deadline = time.monotonic() + BOOTNODE_SECONDS
        while not (addresses := _addresses(home / "bootnode.json")):
            if child.exit_code is not None or time.monotonic() > deadline:
                raise DemoError(f"the bootnode does not start: {child.last_words()}")
            time.sleep(0.1)
        send(self._chain.url, self._chain.keys[0], self.contract, "addBootnode", addresses[0])

    def _prepare(self, node: NodePlan) -> WatchedPeer:
        """Write a node's data directory and fund its account."""
        directory = self._directory(node.number)
        directory.mkdir(mode=0o700)
        identity = directory / "swarm.pem"
        if self._keys is not None:
            shutil.copy2(self._keys / node.directory / "swarm.pem", identity)
        key = load_or_create(identity)
        model = self.plan.model or str(shutil.copytree(self.builtin, directory.absolute() / "builtin-model"))
        config = node_config(node, chain=self._chain.url, contract=self.contract, model=model)
        (directory / "swarm.toml").write_text(toml_text(config))
        (directory / "manifest.toml").write_text(toml_text(self.plan.manifest))
        self._chain.fund(key.address, FUNDS)
        slow = node.trainer.slowdown > 0
        return WatchedPeer(number=node.number, name=name_of(key.peer_id), address=key.address, slow=slow)

    def _directory(self, number: int) -> Path:
        return self.home / f"node-{number}"

    def _spawn(self, name: str, command: Sequence[str]) -> ManagedProcess:
        child = ManagedProcess(name, command, self.home / f"{name.replace(' ', '-')}.log", ENVIRONMENT)
        self._children.append(child)
        return child

    @property
    def node_pids(self) -> tuple[int, ...]:
        """The nodes' process ids, in the order of the plan."""
        return tuple(child.pid for child in self._nodes.values())

    # --- while it runs ------------------------------------------------------------------------------------------

    def look(self) -> Snapshot:
        """Return a snapshot of the swarm. Raises `DemoError` if a process has ended."""
        for child in self._children:
            if child.exit_code is not None:
                raise DemoError(f"{child.name} ended with code {child.exit_code}: {child.last_words()}")
        return self._look()

    def _look(self) -> Snapshot:
        assert self._votes is not None
        before = self._snapshot
        memory = memory_of({pid for child in self._children for pid in process_tree(child.pid)} | {self._chain.pid})
        self._snapshot = Snapshot(
            at=time.time(),
            sightings=tuple(
                seen(sighting, self._reader.status(self._directory(sighting.peer.number)))
                for sighting in before.sightings
            ),
            votes=self._votes.votes(),
            memory=memory,
            memory_peak=max(memory, before.memory_peak),
        )
        return self._snapshot

    def drain(self, report: Progress) -> Snapshot:
        """Let the nodes finish their stage and stop; return the last snapshot. Raises `DemoError` if one fails."""
        report("the nodes finish their stage and stop")
        for child in self._nodes.values():
            child.signal(signal.SIGUSR1)
        deadline = time.monotonic() + self.plan.round_seconds + DRAIN_SECONDS
        while any(child.exit_code is None for child in self._nodes.values()) and time.monotonic() < deadline:
            self._look()
            time.sleep(0.5)
        for child in self._nodes.values():
            if child.exit_code is None:
                raise DemoError(f"{child.name} did not stop when asked to drain; see {child.log}")
            if child.exit_code:
                raise DemoError(f"{child.name} ended with code {child.exit_code}: {child.last_words()}")
        return self._look()

    def self_play(self, report: Progress) -> tuple[Evaluation, ...]:
        """Run self-play of each node's last model on the held-out questions, over all stages. Raises `DemoError`."""
        report("self-play: each peer's model plays all stages with itself on the held-out questions")
        asked = [
            self._spawn(
                f"self-play {node.number}",
                [*SWARM, "eval", "--data-dir", str(self._directory(node.number)), "--stages", "--json"],
            )
            for node in self.plan.nodes
        ]
        for child in asked:
            if child.wait(REHEARSAL_SECONDS) != 0:
                raise DemoError(f"{child.name} failed: {child.last_words()}; see {child.log}")
        return tuple(msgspec.json.decode(child.log.read_bytes().splitlines()[-1], type=Evaluation) for child in asked)


def _addresses(path: Path) -> tuple[str, ...]:
    """Return the addresses that a bootnode has written, none before that."""
    try:
        said: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError):
        return ()
    return tuple(said["addresses"])
