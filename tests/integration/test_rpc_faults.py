"""Votes over an endpoint that fails in every way it can: each is on chain exactly once in the end."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from eth_account import Account

from contracts import contract_at
from node.machine.commands import CastVote, RegisterNode
from node.machine.inputs import PeerRegistered, StageOpened
from tests.integration.test_chain_service import KEYS, Place, place_on
from tools.demo.watch import VoteReader
from tools.local_chain import LocalChain

pytestmark = pytest.mark.integration

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
    """Tell whether a stage is the one at a place."""
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
            settled = await node.settled(f"vote:{voted_on}:{seed.hex()}")
            assert settled.ok, settled.error
            votes += 1
    found = Counter(vote.round for vote in VoteReader(place.chain.url, place.deployment.address).votes())
    assert sorted(found.values()) == [1] * ROUNDS
    assert place.nonce() == 1 + ROUNDS
    assert all(counted[what] for what in FAULTS.values())
