"""Owners and their nodes as processes of their own, on a real chain: whose key may run, who signs, what nobody sees."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from contracts import Parameters, contract_at, deploy, deploy_artifact
from node.cli.onchain import connect
from node.config import ChainSettings, Config, GossipSettings, HttpSettings, LogSettings
from node.exits import Exit
from node.identity import NodeKey, load_or_create
from node.identity.delegation_file import load_delegation, save_delegation
from node.identity.key import new_key
from node.identity.owner_orders import answered, order_of
from node.localnet.local_chain import LocalChain, developer_keys
from node.localnet.processes import process_tree
from node.localnet.toml import toml_text
from protocols.manifest import DataSpec, GameSpec, Manifest, StageSpec, manifest_digest
from protocols.typed_data import Delegation, Domain

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

SWARM = (sys.executable, "-m", "node.cli")
SECONDS = 60.0
STAGE = 600
MANIFEST = Manifest(
    name="owners",
    data=DataSpec(held_out=4),
    game=GameSpec(num_prompts=3, min_prompts=2, num_generations=4, local_groups=4, external_groups=4),
    stages=(StageSpec(name="play", seconds=STAGE),),
)


class Place:
    """A chain with a coordinator for `MANIFEST`."""

    def __init__(self, chain: LocalChain) -> None:
        self.chain = chain
        terms = Parameters(stage_seconds=(STAGE,), manifest_digest=manifest_digest(MANIFEST))
        address = deploy(chain.url, developer_keys(1)[0], terms).address
        self.contract: Any = contract_at(chain.url, address)
        _, _, _, chain_id, _, salt, _ = self.contract.functions.eip712Domain().call()
        self.domain = Domain(chain_id, address.lower(), bytes(salt))
        self.settings = ChainSettings(urls=(chain.url,), contract=self.domain.contract, poll_seconds=1.0)

    def home(self, directory: Path) -> NodeKey:
        """Make a node's data directory; return its key, which has money."""
        directory.mkdir(mode=0o700)
        config = Config(
            chain=self.settings,
            gossip=GossipSettings(listen=("/ip4/127.0.0.1/tcp/0",)),
            http=HttpSettings(port=0),
            log=LogSettings(format="json"),
        )
        (directory / "swarm.toml").write_text(toml_text(config))
        (directory / "manifest.toml").write_text(toml_text(MANIFEST))
        key = load_or_create(directory / "swarm.pem")
        self.chain.fund(key.address)
        return key

    def delegate(self, home: Path, node: NodeKey, owner: NodeKey) -> None:
        """Keep an owner's order in a directory, whatever the contract would say of it."""
        said = Delegation(owner.address, node.address, time.time_ns() // 1_000_000, int(time.time()) + 86_400)
        signature = owner.sign_message(self.domain, said)
        save_delegation(home, answered(order_of(self.domain, said), owner.address, signature), node)

    def register(self, home: Path, node: NodeKey) -> None:
        """Bring the delegation of a directory, from the node's money."""
        signed = load_delegation(home, self.domain)
        assert signed is not None
        connect(self.settings).register(node, signed)

    def owner(self, node: NodeKey) -> str:
        """Return whose a node is on chain; the zero address where it is not registered."""
        named = self.contract.w3.to_checksum_address(node.address)
        return str(self.contract.functions.nodes(named).call()[0]).lower()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with LocalChain(block_seconds=None) as chain:
        yield Place(chain)


def run(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    around = {**os.environ, **environment}
    return subprocess.run([*SWARM, *map(str, args)], capture_output=True, text=True, timeout=SECONDS, env=around)


def events(output: str) -> set[str]:
    """Return which events a node has logged."""
    return {json.loads(line)["event"] for line in output.splitlines()}


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_key_of_another_owner_does_not_run(tmp_path: Path, place: Place) -> None:
    """Its process ends with the documented code and one line, before trainer, gossip or transaction begin."""
    home, first, other = tmp_path / "node", new_key(), new_key()
    node = place.home(home)
    place.delegate(home, node, first)
    place.register(home, node)
    place.delegate(home, node, other)
    ended = run("run", "--data-dir", home)
    assert ended.returncode == Exit.OTHER_OWNER
    assert f"registered for owner {first.address}, not for {other.address}" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert events(ended.stdout) <= {"node.restored", "chain.bound", "http.listening"}
    assert not (home / "trainer").exists()
    assert int(place.chain.call("eth_getTransactionCount", node.address, "latest"), 16) == 1


def test_nobody_becomes_a_keys_owner_unasked(tmp_path: Path, place: Place) -> None:
    """Without a delegation a new key does not run; with --own it registers itself. No key shows in the meantime:
    neither arguments nor titles of node and trainer, nor any line of theirs, hold anything of it."""
    home = tmp_path / "node"
    node = place.home(home)
    refused = run("run", "--data-dir", home)
    assert (refused.returncode, "swarm login" in refused.stderr) == (Exit.DELEGATION, True)
    assert place.owner(node) == f"0x{0:040x}"

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*SWARM, "run", "--own", "--log-level", "debug", "--data-dir", str(home)], stdout=log, stderr=log
        )
        try:
            until(lambda: place.owner(node) == node.address)
            until(lambda: len(process_tree(process.pid)) > 1)
            seen = [shown(pid) for pid in process_tree(process.pid)]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == Exit.OK
    assert len(seen) >= 2
    assert any("--own" in text for text in seen)
    said = (tmp_path / "log").read_text()
    assert "node.registering" in events(said)
    assert not any(form in text for text in (*seen, said) for form in forms(node))


FAULT = """
import node.app.node

async def fault(*arguments, **named):
    raise RuntimeError("nobody foresaw this")

node.app.node.Node._join_swarm = fault
"""
"""What Python runs before the node: its fault comes after the key was read and the services stand."""


def test_the_trace_of_a_fault_shows_no_key(tmp_path: Path, place: Place) -> None:
    """A fault that nobody foresaw, with the key in memory: its trace is logged, and nothing of the key is in it."""
    home = tmp_path / "node"
    node = place.home(home)
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    ended = run("run", "--own", "--data-dir", home, PYTHONPATH=str(tmp_path))
    assert (ended.returncode, "nobody foresaw this" in ended.stdout) == (Exit.FAULT, True)
    assert "Traceback" in ended.stdout
    assert not any(form in ended.stdout + ended.stderr for form in forms(node))


def shown(pid: int) -> str:
    """Return what other users of the machine may read of a process: title, arguments, status."""
    return " ".join(Path(f"/proc/{pid}/{name}").read_text() for name in ("comm", "cmdline", "status"))


def forms(key: NodeKey) -> tuple[str, ...]:
    """Return a key as it may be written."""
    return key.secret.hex(), repr(key.secret)[2:-1], str(int.from_bytes(key.secret, "big"))


def test_a_contract_wallet_signs_by_pasting(tmp_path: Path, place: Place) -> None:
    """On a terminal the request is printed; the signature that the wallet's signer made is pasted, and the wallet's
    contract asked (ERC-1271). The node is then the wallet's; another signer's is refused."""
    home, signer, stranger = tmp_path / "node", new_key(), new_key()
    node = place.home(home)
    signers = str(Account.from_key(signer.secret).address)
    wallet = deploy_artifact(place.chain.url, developer_keys(1)[0], "test/Wallet", signers, 0).address
    code, said = paste(home, wallet, stranger)
    assert (code, f"{wallet} did not sign this" in said) == (Exit.DELEGATION, True)
    assert not (home / "delegation.json").exists()
    code, said = paste(home, wallet, signer)
    assert code == Exit.OK, said
    place.register(home, node)
    assert place.owner(node) == wallet


def paste(home: Path, wallet: str, signer: NodeKey) -> tuple[int, str]:
    """Answer `swarm login` on a terminal as a wallet's signer does; return its code and what it said."""
    ours, theirs = pty.openpty()
    command = [*SWARM, "login", "--owner", wallet, "--data-dir", str(home)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    assert process.stdout
    request = json.loads(process.stdout.readline())
    signed = Account.sign_message(encode_typed_data(full_message=request["typed_data"]), signer.secret)
    os.write(ours, (json.dumps(request | {"signature": bytes(signed.signature).hex()}) + "\n").encode())
    _, said = process.communicate(timeout=SECONDS)
    os.close(ours)
    return process.returncode, said
