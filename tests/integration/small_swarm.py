"""A swarm of crashing nodes on a real chain, for tests that kill them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from web3.exceptions import ContractLogicError

from contracts import Parameters, contract_at, deploy
from node.config import ChainSettings, Config, GossipSettings, HttpSettings, LogSettings, TrainerSettings
from node.identity import load_or_create
from node.localnet.demo_watch import NodeReader, VoteReader, node_url
from node.localnet.local_chain import LocalChain, free_port
from node.localnet.toml import toml_text
from protocols.identifiers import Address
from protocols.manifest import Manifest, manifest_digest
from tests.support.paths import ROOT

NODE = ("-m", "tests.integration.crashing_node")
LOOK_SECONDS = 0.25


RACED = ("advance", "commitVotes", "revealVotes", "submitVotes", "submitRewards", "registerMany")
"""What several nodes may try: turns follow each other within a second here, and blocks may take longer."""
TRAVEL_SECONDS = 2
"""How long a transaction may travel on a busy machine; a stage may end meanwhile."""


class Member:
    """One node of the swarm: its data directory, its address, what its command begins with, its process."""

    def __init__(self, home: Path, address: Address, inside: tuple[str, ...] = ()) -> None:
        self.home, self.address, self.inside = home, address, inside
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it crashes where the file `crash` says."""
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.inside, sys.executable, *NODE, str(self.home)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of the log with an event of this name."""
        lines = (line for line in (self.home / "log").read_text().splitlines() if f'"{name}"' in line)
        return [json.loads(line) for line in lines]

    def metrics(self) -> str:
        """Return what the running node says to Prometheus."""
        with urllib.request.urlopen(f"{node_url(self.home)}/metrics", timeout=30) as answer:
            return str(answer.read(), "utf-8")

    def arm(self, where: str) -> None:
        """Have the node die at the next command that `where` names ("before CommitVote")."""
        fresh = self.home / "crash.new"
        fresh.write_text(where)
        fresh.replace(self.home / "crash")

    def disarm(self) -> None:
        """Let the node live."""
        (self.home / "crash").unlink(missing_ok=True)

    def died(self, seconds: float) -> bool:
        """Wait for the process to be killed; tell whether it was, by SIGKILL."""
        assert self.process is not None
        try:
            return self.process.wait(timeout=seconds) == -9
        except subprocess.TimeoutExpired:
            return False

    def end(self) -> None:
        """End the process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class SmallSwarm:
    """Chain, contract and members; the first one is the others' bootnode.

    Use as a context manager: every process is ended.
    """

    def __init__(
        self, manifest: Manifest, home: Path, slowdowns: tuple[float, ...], *, without_money: tuple[int, ...] = ()
    ) -> None:
        """Take a manifest and each member's seconds per group; members whose number (from 1) is named get no funds."""
        self.manifest, self._without_money = manifest, without_money
        self.chain = LocalChain(block_seconds=1)
        self.contract: Any = None
        self._reader = NodeReader()
        self._home, self._slowdowns = home, slowdowns
        self._port = free_port()
        self.bootnodes: tuple[str, ...] = ()
        self.members: list[Member] = []

    def __enter__(self) -> Self:
        self.chain.start()
        terms = Parameters(
            stage_seconds=tuple(stage.seconds for stage in self.manifest.stages),
            manifest_digest=manifest_digest(self.manifest),
            voting_mode=self.manifest.voting.mode,
            winners=self.manifest.voting.winners,
            block_seconds=1,
        )
        self.contract = contract_at(self.chain.url, deploy(self.chain.url, self.chain.keys[0], terms).address)
        for number, slowdown in enumerate(self._slowdowns, 1):
            self.members.append(self._member(number, slowdown))
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        for member in self.members:
            member.end()
        self._reader.close()
        self.chain.stop()

    def _member(self, number: int, slowdown: float) -> Member:
        home = self._home / f"node-{number}"
        home.mkdir(mode=0o700, parents=True)
        key = load_or_create(home / "swarm.pem")
        config = Config(
            own_owner=True,
            chain=ChainSettings(urls=(self.chain_url,), contract=self.contract.address.lower(), poll_seconds=1.0),
            gossip=self.gossip(number),
            trainer=TrainerSettings(slowdown=slowdown),
            http=HttpSettings(port=0),
            log=LogSettings(format="json"),
        )
        (home / "swarm.toml").write_text(toml_text(config))
        (home / "manifest.toml").write_text(toml_text(self.manifest))
        if number not in self._without_money:
            self.chain.fund(key.address)
        where = (config.gossip.announce or config.gossip.listen)[0]
        self.bootnodes = self.bootnodes or (f"{where}/p2p/{key.peer_id}",)
        return Member(home, key.address, self.inside(number))

    @property
    def chain_url(self) -> str:
        """The chain's URL as nodes know it."""
        return self.chain.url

    def gossip(self, number: int) -> GossipSettings:
        """Return where a member listens; the first one is everybody's bootnode."""
        port = 0 if self.bootnodes else self._port
        return GossipSettings(listen=(f"/ip4/127.0.0.1/tcp/{port}",), bootnodes=self.bootnodes)

    def inside(self, number: int) -> tuple[str, ...]:
        """Return what a member's command begins with."""
        return ()

    def is_current(self, member: Member) -> bool:
        """Return True if a node says that it is in the contract's round."""
        status = self._reader.status(member.home)
        return status is not None and status.chain == "present" and status.round == self.round()

    # --- what stands on the chain -------------------------------------------------------------------------------

    def round(self) -> int:
        """Return the round that the contract is in."""
        return int(self.contract.functions.current().call()[0])

    def registered(self) -> dict[Address, int]:
        """Return every registered node and the round from which on it counts."""
        logs = self.contract.events.PeerRegistered().get_logs(from_block=0)
        return {str(log["args"]["node"]).lower(): int(log["args"]["since"]) for log in logs}

    def named(self, address: Address) -> str:
        """Return an address in the form that web3 takes."""
        return str(self.contract.w3.to_checksum_address(address))

    def rounds_voted(self, address: Address) -> Counter[int]:
        """Return how often a node's winners stand on the chain, by round."""
        votes = VoteReader(self.chain.url, self.contract.address).votes()
        return Counter(vote.round for vote in votes if vote.voter == address)

    def failed_transactions(self, address: Address) -> list[str]:
        """Return the node's own transactions that were mined, failed, and did not merely lose a race."""
        eth = self.contract.w3.eth
        failed = []
        for number in range(int(eth.block_number) + 1):
            for sent in eth.get_block(number, full_transactions=True)["transactions"]:
                if str(sent["from"]).lower() != address or not sent.get("to"):
                    continue
                name = self.contract.decode_function_input(sent["input"])[0].fn_name
                if eth.get_transaction_receipt(sent["hash"])["status"] == 1 or name in RACED:
                    continue
                if not self._came_just_too_late(sent, number):
                    failed.append(name)
        return failed

    def _came_just_too_late(self, sent: Any, number: int) -> bool:
        """Return True if the stage of a vote ended while it travelled: the contract took it moments before.

        A vote that stood already is refused moments before as well: that is no race.
        """
        eth = self.contract.w3.eth
        opened = int(self.contract.functions.current().call(block_identifier=number)[4])
        if int(eth.get_block(number)["timestamp"]) - opened > TRAVEL_SECONDS:
            return False
        while int(eth.get_block(number)["timestamp"]) >= opened:
            number -= 1
        try:
            eth.call({"from": sent["from"], "to": sent["to"], "data": sent["input"]}, number)
        except ContractLogicError:
            return False
        return True

    def wait(self, seconds: float, holds: Callable[[], bool]) -> bool:
        """Wait until `holds()`; tell whether it did within `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if holds():
                return True
            time.sleep(LOOK_SECONDS)
        return holds()
