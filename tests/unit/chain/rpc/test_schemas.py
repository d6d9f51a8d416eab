"""Answers of endpoints that are none: over a real line, and whatever form they take."""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from eth_abi.exceptions import DecodingError
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from node.chain.contract.swarm import ABI
from node.chain.rpc.blocks import parse_head
from node.chain.rpc.client import ConnectionLostError, RpcError, RpcMessage, result_of
from node.chain.rpc.schemas import HEADS, RESPONSE_SCHEMAS, validated
from node.chain.service import ChainIdentity, CoordinatorService
from node.chain.transactions.fees import suggested_fees
from node.config import ChainSettings
from node.machine.inputs import AnyInput, ChainLost, ChainRestored
from node.store.outbox import SqliteOutbox
from protocols.manifest import Manifest
from tests.support.paths import ROOT
from tests.support.rpc_standin import CONTRACT, SEED, TIP, Anything, answered, block

LOG = {
    "topics": [ABI.topic("RoundAdvanced"), f"0x{5:064x}"],
    "data": "0x" + SEED.hex() + f"{1_800_000_000:064x}",
    "blockNumber": "0x14",
    "blockHash": "0x" + "bb" * 32,
    "transactionHash": "0x" + "cc" * 32,
    "logIndex": "0x0",
}
RECEIPT = {"transactionHash": "0x" + "cc" * 32, "blockNumber": "0x14", "gasUsed": "0x5208", "status": "0x1"}
CALL = {"data": ABI.call("current")}
GOOD: dict[str, Any] = {
    "eth_getBlockByNumber": block(TIP),
    "eth_getLogs": [LOG],
    "eth_getTransactionReceipt": RECEIPT,
    "eth_feeHistory": {"baseFeePerGas": ["0x1", "0x2"], "reward": [["0x1"], ["0x3"]]},
    "eth_call": answered("eth_call", CALL),
    "eth_estimateGas": "0x5208",
    HEADS: block(TIP),
}


def read(method: str, answer: Any) -> None:
    """Read an answer as the node does."""
    match method:
        case "eth_getBlockByNumber" | "newHeads" if answer:
            parse_head(answer).may_hold_logs_of(CONTRACT)
        case "eth_getLogs":
            for log in answer:
                ABI.event(log)
        case "eth_getTransactionReceipt" if answer:
            assert [int(answer[key] or "0x0", 16) >= 0 for key in ("blockNumber", "gasUsed", "status")]
        case "eth_feeHistory":
            suggested_fees(answer, 10**12)
        case "eth_call":
            ABI.result("current", answer)
        case "eth_estimateGas":
            int(answer, 16)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths to everything in an answer."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return an answer with something else at a path; nothing at all where `new` is ..."""
    if not path:
        return None if new is ... else new
    value = copy.deepcopy(value)
    within = value
    for key in path[:-1]:
        within = within[key]
    if new is ...:
        del within[path[-1]]
    else:
        within[path[-1]] = new
    return value


RUBBISH = st.one_of(
    st.just(...),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["0x", "0x0", "0xg", "0x123", "0x" + "ff" * 32, "0x" + "ff" * 33]),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), method=st.sampled_from(sorted(GOOD)), new=RUBBISH)
def test_what_passes_can_be_read(data: st.DataObject, method: str, new: Any) -> None:
    """Whatever is put in the place of whatever part of an answer: it is refused in one way, or it can be read."""
    path = data.draw(st.sampled_from(list(places(GOOD[method]))))
    answer = changed(GOOD[method], path, new)
    try:
        passed = validated(method, answer)
    except ValueError:
        return
    try:
        read(method, passed)
    except DecodingError:
        assert method in ("eth_getLogs", "eth_call")


@pytest.mark.parametrize("method", sorted(GOOD))
def test_good_answers_pass(method: str) -> None:
    """As they are."""
    assert validated(method, GOOD[method]) == GOOD[method]
    read(method, GOOD[method])


def test_every_method_that_is_used_has_a_shape() -> None:
    """A method without one could not be asked."""
    sources = [path.read_text() for path in (ROOT / "node" / "chain").rglob("*.py")]
    used = {word for text in sources for word in text.split('"') if word.startswith("eth_")}
    assert used - {"eth_subscription"} <= RESPONSE_SCHEMAS.keys()


@pytest.mark.parametrize("error", [{"code": [], "message": 3}, {}, "no", 7, [1]])
def test_an_error_of_any_form_is_an_error(error: Any) -> None:
    """Its code and text are kept as far as there are any."""
    assert isinstance(result_of(RpcMessage(error=error)), RpcError)


# --- over a line ------------------------------------------------------------------------------------------------------


@contextmanager
def served(otherwise: dict[str, Any]) -> Iterator[tuple[str, Counter[str]]]:
    """Serve the stand-in's chain over HTTP, some methods answered otherwise; yield its URL and what was asked."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked[said["method"]] += 1
            result = otherwise.get(said["method"], ...)
            result = answered(said["method"], *said["params"]) if result is ... else result
            body = json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": result}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def service(home: Path, *urls: str) -> CoordinatorService:
    settings = ChainSettings(urls=urls, contract=CONTRACT, binding="swarm")
    outbox, account = SqliteOutbox(home / "outbox.sqlite"), Account.from_key(b"\1" * 32)
    return CoordinatorService(settings, Manifest(name="test"), ChainIdentity(account), outbox, Anything())


async def until(asked: Callable[[], Any], chain: CoordinatorService) -> list[AnyInput]:
    """Run a service until something holds; return what it reported."""
    inputs: list[AnyInput] = []

    async def report(one: AnyInput) -> None:
        inputs.append(one)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chain.run, report)
            while not asked():  # noqa: ASYNC110 - a thread beside trio has no event to wait for
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    return inputs


HEADLESS = changed(block(TIP), ("parentHash",), ...)


@pytest.mark.parametrize("garbage", [{"eth_getBlockByNumber": HEADLESS}, {"eth_call": None}])
async def test_the_next_endpoint_is_asked_where_the_first_answers_garbage(
    tmp_path: Path, garbage: dict[str, Any]
) -> None:
    """A field that is missing, null, another type: the second endpoint is the chain, and none of it is lost."""
    with served(garbage) as (bad, _), served({}) as (good, asked):
        chain = service(tmp_path, bad, good)
        assert (await chain.read_facts()).chain_id == 31337
        asked.clear()
        inputs = await until(lambda: asked["eth_getTransactionCount"] > 1, chain)
    assert isinstance(inputs[0], ChainRestored)


async def test_garbage_alone_is_a_chain_that_is_away(tmp_path: Path) -> None:
    """Said in a line that names the method and what is wrong with the answer; nothing ends."""
    with served({"eth_getBlockByNumber": HEADLESS}) as (url, asked):
        chain = service(tmp_path, url)
        with pytest.raises(ConnectionLostError, match=r"eth_getBlockByNumber: it answered garbage: .*parentHash"):
            await chain.read_facts()
        asked.clear()
        (lost,) = await until(lambda: asked["eth_blockNumber"] > 1, chain)
    assert isinstance(lost, ChainLost)


async def test_a_log_that_does_not_fit_has_the_history_read_again(tmp_path: Path) -> None:
    """What such an endpoint said is not to be trusted: the next one is asked for all of it."""
    log = {**LOG, "topics": [ABI.topic("PeerRegistered"), "0x" + "00" * 32, "0x" + "00" * 32], "data": "0x00"}
    with served({"eth_getLogs": [log]}) as (bad, _), served({}) as (good, asked):
        inputs = await until(lambda: asked["eth_getLogs"], service(tmp_path, bad, good))
    assert not [one for one in inputs if isinstance(one, ChainLost)]
