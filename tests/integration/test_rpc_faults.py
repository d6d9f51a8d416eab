"""Votes over an endpoint that fails in every way it can: each is on chain exactly once in the end."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trio
from eth_account import Account

from contracts import contract_at
from node.chain.contract.swarm import VOTED
from node.localnet.demo_watch import VoteReader
from node.localnet.local_chain import LocalChain
from node.machine.commands import CastVote, RegisterNode
from node.machine.inputs import PeerRegistered, StageOpened, TransactionSettled
from tests.integration.chain_place import KEYS, Place, Running, eventually, other, place_on, vote_key, voter

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

ROUNDS = 4
FAULTS = {23: "refuse", 29: "drop answer", 31: "hang up", 37: "garbage"}
"""What becomes of every 23rd, 29th, ... request: one in nine fails."""


class Proxy(BaseHTTPRequestHandler):
    """Forwards to the chain, most of the time. A dropped answer is the worst: the request was carried out."""

    chain_port = 0
    counted: Counter[str]
    lock: threading.Lock

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self._fault()
        if fault == "refuse":
            self._answer(503, b"busy")
        elif fault == "garbage":
            self._answer(200, b"<html>not json</html>")
        elif fault == "hang up":
            self.close_connection = True
        else:
            answer = self._forwarded(body)
            if fault == "drop answer":
                self.close_connection = True
            else:
                self._answer(200, answer)

    def _fault(self) -> str:
        with self.lock:
            self.counted["requests"] += 1
            number = self.counted["requests"]
            fault = next((what for every, what in FAULTS.items() if number % every == 0), "")
            self.counted[fault] += 1
        return fault

    def _forwarded(self, body: bytes) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.chain_port, timeout=10)
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def is_at(place: tuple[int, int], opened: StageOpened) -> bool:
    """Return True if a stage is the one at a place."""
    return (opened.round, opened.stage) == place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A chain that mines every second."""
    with LocalChain(block_seconds=1, accounts=4) as chain:
        yield place_on(chain, tmp_path)


@pytest.fixture
def endpoint(place: Place) -> Iterator[tuple[str, Counter[str]]]:
    """A failing way to that chain, and what it has done."""
    counted: Counter[str] = Counter()
    handler = type("Failing", (Proxy,), {"chain_port": place.chain.port, "counted": counted, "lock": threading.Lock()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", counted
        server.shutdown()


async def test_votes_survive_an_endpoint_that_fails(place: Place, endpoint: tuple[str, Counter[str]]) -> None:
    """Refusals, lost answers, cut lines and garbage: every vote is on chain once, with no nonce lost."""
    url, counted = endpoint
    contract = contract_at(place.chain.url, place.deployment.address)
    async with place.running(urls=(url,)) as node:
        await node.execute(RegisterNode())
        me = place.account.address.lower()
        await node.until(PeerRegistered, lambda one: one.peer == me)
        place.register(KEYS[2])
        winner = Account.from_key(KEYS[2]).address.lower()
        votes = 0
        while votes < ROUNDS:
            place.advance()
            number, stage, *_ = contract.functions.current().call()
            await node.until(StageOpened, partial(is_at, (number, stage)))
            voted_on = number - 1
            if stage != 0 or voted_on < 2:
                continue
            seed = bytes(contract.functions.seedOf(voted_on).call())
            await node.execute(CastVote(voted_on, seed, (winner,)))
            settled = await node.settled(vote_key(voted_on, seed))
            assert settled.ok, settled.error
            votes += 1
    found = Counter(vote.round for vote in VoteReader(place.chain.url, place.deployment.address).votes())
    assert sorted(found.values()) == [1] * ROUNDS
    assert place.nonce() == 1 + ROUNDS
    assert all(counted[what] for what in FAULTS.values())


class Line:
    """A way to the chain that can be cut: every connection over it ends, new ones are taken."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = trio.Event()
        self.connections = 0

    def cut(self) -> None:
        """End every connection."""
        self._cut.set()
        self._cut = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Carry one connection until either side ends it, or it is cut."""
        self.connections += 1
        cut = self._cut
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as chain, trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, stream, chain, nursery.cancel_scope)
            nursery.start_soon(self._carry, chain, stream, nursery.cancel_scope)
            await cut.wait()
            nursery.cancel_scope.cancel()

    async def _carry(self, source: trio.SocketStream, to: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            async for data in source:
                await to.send_all(data)
        except trio.BrokenResourceError:
            pass
        both.cancel()


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Place]:
    """A chain that mines with transactions and on demand."""
    with LocalChain(block_seconds=None, accounts=4) as chain:
        yield place_on(chain, tmp_path)


async def next_vote(place: Place, node: Running, *, waits: bool = False) -> CastVote:
    """Go on to where the next round is voted on, and have the node vote; the vote `waits` for a block that is mined by
    hand."""
    for _ in range(2):
        place.advance()
    number = place.view("current")[0]
    await node.until(StageOpened, lambda one: (one.round, one.stage) == (number, 0))
    place.chain.call("anvil_mine", "0x5")
    place.chain.call("evm_setAutomine", not waits)
    vote = CastVote(number - 1, place.view("seedOf", number - 1)[0], (other(),))
    await node.execute(vote)
    if waits:
        await eventually(lambda: place.nonce("pending") > place.nonce())
    return vote


async def is_mined(place: Place, node: Running, vote: CastVote) -> None:
    """Mine until a vote has settled; then every transaction is mined at once again."""
    limit = time.monotonic() + 20
    while not [one for one in node.inputs if isinstance(one, TransactionSettled) and one.key == vote.key]:
        assert time.monotonic() < limit
        place.chain.call("evm_mine")
        await trio.sleep(0.1)
    assert (await node.settled(vote.key)).ok
    place.chain.call("evm_setAutomine", True)


async def test_each_vote_stands_once_after_reorgs_cut_lines_and_stuck_transactions(still: Place) -> None:
    """A vote undone by a reorg of three blocks, one whose line and subscription are cut while it waits for a block, one
    that is replaced because fees rose: in the end each is there once, with no nonce lost."""
    chain, line, me = still.chain, Line(still.chain.port), still.account.address
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, line.serve, [listener])
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with still.running(urls=(url,), stuck_seconds=0.5) as node:
            await voter(still, node)

            undone = await next_vote(still, node)
            await node.settled(undone.key)
            chain.call("anvil_reorg", 3, [])
            assert still.view("ballotOf", me, undone.round)[0] == 0
            chain.call("evm_mine")
            await eventually(lambda: still.view("ballotOf", me, undone.round)[0] == VOTED)

            cut_off = await next_vote(still, node, waits=True)
            line.cut()
            await is_mined(still, node, cut_off)
            assert line.connections > 1

            stuck = await next_vote(still, node, waits=True)
            chain.call("anvil_setNextBlockBaseFeePerGas", hex(200 * 10**9))
            await is_mined(still, node, stuck)
            name = (await node.settled(stuck.key)).transaction
            assert int(chain.call("eth_getTransactionByHash", name)["maxFeePerGas"], 16) >= 200 * 10**9
        nursery.cancel_scope.cancel()
    found = Counter(vote.round for vote in VoteReader(chain.url, still.deployment.address).votes())
    assert found == Counter({undone.round: 1, cut_off.round: 1, stuck.round: 1})
    assert still.nonce() == still.nonce("pending") == 1 + len(found)
