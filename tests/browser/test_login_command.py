"""`swarm login --browser` from the terminal to the file, with a real chain, browser and wallet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from contracts import Parameters, deploy
from node.cli.onchain import connect
from node.config import ChainSettings
from node.exits import Exit
from node.identity import load_or_create
from node.identity.delegation_file import load_delegation
from node.localnet.local_chain import LocalChain, developer_keys
from tests.browser.chromium import open_tab, program
from tests.browser.test_login_page import OWNER, WALLET, Wallet

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(program() is None, reason="no Chromium is installed; install the package chromium"),
]

SECONDS = 60.0


@pytest.fixture
def settings() -> Iterator[ChainSettings]:
    """A chain with a coordinator."""
    with LocalChain(block_seconds=None) as chain:
        terms = Parameters(stage_seconds=(60,), manifest_digest=bytes(32))
        contract = deploy(chain.url, developer_keys(1)[0], terms).address
        yield ChainSettings(urls=(chain.url,), contract=contract)


@asynccontextmanager
async def logging_in(home: Path, settings: ChainSettings) -> AsyncIterator[trio.Process]:
    """Start the command; it has ended when this does."""
    options = ("--data-dir", str(home), "--chain-url", settings.urls[0], "--contract", settings.contract)
    command = [sys.executable, "-m", "node.cli", "login", "--browser", "--days", "7", *options]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def link(process: trio.Process) -> str:
    """Return the link that the operator is told to open."""
    said = b""
    assert process.stderr
    while said.count(b"\n") < 2:
        more = await process.stderr.receive_some()
        assert more, said
        said += more
    return said.decode().splitlines()[1]


async def test_the_command_ends_when_the_browser_has_signed(tmp_path: Path, settings: ChainSettings) -> None:
    """The link is opened, the wallet asked, the delegation kept for this node and contract; the command says what
    comes next. Its link is nowhere among its arguments."""
    home = tmp_path / "node"
    home.mkdir(mode=0o700)
    node = load_or_create(home / "swarm.pem")
    with trio.fail_after(SECONDS):
        async with open_tab(tmp_path / "profile") as tab, logging_in(home, settings) as process:
            url = await link(process)
            assert url.partition("#")[2] not in await trio.Path(f"/proc/{process.pid}/cmdline").read_text()
            wallet = Wallet(tab)
            await tab.expose("walletAsked", wallet.answer)
            await tab.command("Page.addScriptToEvaluateOnNewDocument", source=WALLET)
            await tab.command("Page.navigate", url=url)
            await tab.until("document.querySelector('button')?.textContent === 'Sign with Test wallet'")
            assert node.address in await tab.evaluate("document.getElementById('about').textContent")
            await tab.evaluate("document.querySelector('button').click()")
            assert await process.wait() == Exit.OK
            assert process.stdout
            assert b"register it: swarm register" in await process.stdout.receive_some()
    chain = connect(settings)
    kept = load_delegation(home, chain.domain)
    assert kept is not None
    assert (kept.delegation.owner, kept.delegation.node) == (OWNER.address.lower(), node.address)
    assert 6 * 86_400 < kept.delegation.expiry - chain.now() <= 7 * 86_400
