"""The chain service when the chain fails it: outages, reorgs, stuck transactions, restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from contracts import Parameters, deploy
from node.localnet.local_chain import LocalChain
from node.machine.commands import RegisterNode
from node.machine.inputs import ChainLost, ChainRestored, PeerRegistered, StageOpened, TransactionSettled
from node.machine.transaction_keys import RegistrationKey
from tests.integration.chain_place import KEYS, PATIENCE, Place, eventually, place_on

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A chain that mines only with transactions and on demand."""
    with LocalChain(block_seconds=None, accounts=4) as chain:
        yield place_on(chain, tmp_path)


@pytest.fixture
def ticking(tmp_path: Path) -> Iterator[Place]:
    """A chain that mines every second and keeps its state on disk."""
    with LocalChain(block_seconds=1, accounts=4, state=tmp_path / "state.json") as chain:
        yield place_on(chain, tmp_path)


async def test_a_frozen_chain_is_lost_and_restored(ticking: Place) -> None:
    """An endpoint that keeps the line and says nothing is noticed; what was asked meanwhile is done afterwards."""
    async with ticking.running() as node:
        await node.until(StageOpened)
        ticking.chain.freeze()
        await node.until(ChainLost)
        since = len(node.inputs)
        await node.execute(RegisterNode())
        ticking.chain.thaw()
        await node.until(ChainRestored, since=since)
        assert (await node.settled(RegistrationKey())).ok
        await node.until(StageOpened, since=since)
    assert ticking.nonce() == 1


async def test_a_killed_chain_comes_back_with_blocks_missing(ticking: Place) -> None:
    """What the chain forgot with its last blocks is sent again, the same transaction."""
    async with ticking.running() as node:
        await node.until(StageOpened)
        await trio.sleep(2.0)
        await node.execute(RegisterNode())
        first = await node.settled(RegistrationKey())
        ticking.chain.kill()
        await node.until(ChainLost)
        since = len(node.inputs)
        ticking.chain.start()
        await node.until(ChainRestored, since=since)
        await eventually(lambda: ticking.view("nodes", ticking.account.address)[1])
    assert ticking.nonce() == 1
    receipt = ticking.chain.call("eth_getTransactionReceipt", first.transaction)
    assert receipt["status"] == "0x1"


async def test_another_endpoint_takes_over(ticking: Place) -> None:
    """With a second URL a dead first one is no loss of the chain."""
    async with ticking.running(urls=("ws://127.0.0.1:9", ticking.chain.http_url)) as node:
        await node.execute(RegisterNode())
        assert (await node.settled(RegistrationKey())).ok
        assert not [one for one in node.inputs if isinstance(one, ChainLost)]


async def test_a_fresh_chain_at_the_same_url_is_refused(place: Place) -> None:
    """A chain that repeats ids and addresses is still another one: nothing of the old is sent to it."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.kill()
        await node.until(ChainLost)
        since = len(node.inputs)
        place.chain.start()
        place.chain.call("anvil_mine", "0x3", "0x7")
        deploy(place.chain.url, KEYS[0], Parameters(stage_seconds=(60, 60), manifest_digest=b"m" * 32))
        await node.execute(RegisterNode())
        await trio.sleep(2.0)
        assert not [one for one in node.inputs[since:] if isinstance(one, ChainRestored)]
    assert place.nonce() == 0


async def test_a_reorg_across_a_stage_rewinds(place: Place) -> None:
    """The stage that a reorg changed is reported as it is now, marked."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.call("anvil_mine", "0x5")
        place.advance()
        await node.until(StageOpened, lambda one: one.stage == 1)
        since = len(node.inputs)
        place.chain.call("anvil_reorg", 3, [])
        place.chain.call("evm_mine")
        back = await node.until(StageOpened, since=since)
        assert (back.round, back.stage, back.rewound) == (0, 0, True)


async def test_a_reorged_transaction_is_sent_again(place: Place) -> None:
    """A registration that left the chain with its block comes back without being asked for."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.call("anvil_mine", "0x5")
        await node.execute(RegisterNode())
        await node.settled(RegistrationKey())
        place.chain.call("anvil_reorg", 3, [])
        place.chain.call("evm_mine")
        await eventually(lambda: place.view("nodes", place.account.address)[1])
    assert place.nonce() == 1


async def test_confirmations_are_waited_for(place: Place) -> None:
    """With k confirmations a stage opens, and a transaction settles, once k blocks lie on top."""
    async with place.running(confirmations=3) as node:
        await node.until(StageOpened)
        await node.execute(RegisterNode())
        await eventually(lambda: place.nonce() > 0)
        await trio.sleep(0.3)
        assert not [one for one in node.inputs if isinstance(one, PeerRegistered | TransactionSettled)]
        place.chain.call("anvil_mine", "0x3")
        assert (await node.settled(RegistrationKey())).ok
        await node.until(PeerRegistered)


async def test_a_stuck_transaction_is_made_dearer(place: Place) -> None:
    """Fees that rose over the offer are met with the same nonce and a better one."""
    async with place.running(stuck_seconds=0.5) as node:
        await node.until(StageOpened)
        place.chain.call("evm_setAutomine", False)
        await node.execute(RegisterNode())
        await eventually(lambda: place.nonce("pending") > 0)
        deadline = time.monotonic() + PATIENCE
        while not [one for one in node.inputs if isinstance(one, TransactionSettled)]:
            assert time.monotonic() < deadline
            if place.nonce() == 0 and not _offered(place, 200 * 10**9):
                place.chain.call("anvil_setNextBlockBaseFeePerGas", hex(200 * 10**9))
            place.chain.call("evm_mine")
            await trio.sleep(0.2)
        assert (await node.settled(RegistrationKey())).ok
    mined = place.chain.call("eth_getTransactionByHash", (await node.settled(RegistrationKey())).transaction)
    assert (int(mined["nonce"], 16), int(mined["maxFeePerGas"], 16) >= 200 * 10**9) == (0, True)


def _offered(place: Place, fee: int) -> bool:
    pool = place.chain.call("txpool_content")
    offers = [one for sender in pool["pending"].values() for one in sender.values()]
    return any(int(one["maxFeePerGas"], 16) >= fee for one in offers)


async def test_a_restart_resumes_without_a_second_transaction(place: Place) -> None:
    """What was sent before the crash is found again, mined once, and settled."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.call("evm_setAutomine", False)
        await node.execute(RegisterNode())
        await eventually(lambda: place.nonce("pending") > 0)
    async with place.running() as node:
        await node.execute(RegisterNode())
        await node.until(StageOpened)
        await trio.sleep(0.3)
        place.chain.call("evm_mine")
        assert (await node.settled(RegistrationKey())).ok
        place.chain.call("evm_mine")
        await trio.sleep(0.3)
    assert place.nonce("pending") == 1


async def test_a_crash_between_storing_and_sending_sends_the_same_transaction(place: Place) -> None:
    """The signed form is on disk first: after the crash that very form is sent."""
    async with place.running() as node:
        await node.until(StageOpened)
        place.chain.call("evm_setAutomine", False)
        await node.execute(RegisterNode())
        await eventually(lambda: place.nonce("pending") > 0)
    (lost,) = place.chain.call("txpool_content")["pending"][place.account.address.lower()].values()
    place.chain.call("anvil_dropTransaction", lost["hash"])
    assert place.nonce("pending") == 0
    place.chain.call("evm_setAutomine", True)
    async with place.running() as node:
        done = await node.settled(RegistrationKey())
    assert (done.ok, done.transaction) == (True, lost["hash"])


async def test_what_was_settled_is_answered_again(place: Place) -> None:
    """A machine that replays its journal gets the same answer and causes nothing."""
    async with place.running() as node:
        await node.execute(RegisterNode())
        first = await node.settled(RegistrationKey())
    async with place.running() as node:
        await node.execute(RegisterNode())
        assert await node.settled(RegistrationKey()) == first
    assert place.nonce() == 1
