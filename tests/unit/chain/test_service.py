"""The chain service over endpoints that misbehave, on trio's clock."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from node.chain.rpc.block_follower import LAG_SECONDS
from node.chain.rpc.client import ConnectionLostError, RpcError
from node.chain.rpc.failover import FIRST_PAUSE, LAST_PAUSE, EndpointFailover
from node.machine.commands import ReportReward
from node.machine.inputs import ChainLost, ChainRestored, StageOpened
from tests.support.rpc_standin import SEED, TIP, StandinConnection, block, followed

REWARD = ReportReward(5, 0, SEED, 0.5)


def limited(*_: Any) -> NoReturn:
    raise RpcError(-32005, "daily request count exceeded, request rate limited")


def away(*_: Any) -> NoReturn:
    raise ConnectionLostError("gone")


async def test_a_rate_limit_on_fees_is_waited_out(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The connection stays, what is to be sent is tried again every few seconds."""
    line = StandinConnection(a={"eth_feeHistory": limited})
    inputs = await followed(line.service(tmp_path), 60.0, REWARD)
    assert len(line.dialled) == 1
    assert Counter(map(type, inputs))[ChainLost] == 0
    assert 10 <= line.asked["eth_feeHistory"] <= 15


async def test_an_endpoint_that_refuses_the_account_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Balance and price are looked at again later: stages are followed all the same."""
    line = StandinConnection(a={"eth_gasPrice": limited})
    service = line.service(tmp_path)
    service.join(await service.read_facts(), None)
    line.dialled.clear()
    await followed(service, 60.0)
    assert len(line.dialled) == 1
    assert 3 <= line.asked["eth_gasPrice"] <= 6


async def test_sessions_that_break_at_once_come_ever_more_rarely(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Connected, caught up, and then refused: it is tried again after a pause that grows, not five times a second."""
    line = StandinConnection(a={"eth_getTransactionCount": limited})
    inputs = await followed(line.service(tmp_path), 300.0, REWARD)
    times = [at for _, at in line.dialled]
    assert len(times) < 50
    assert times[-1] - times[-2] > 4.0
    assert Counter(map(type, inputs))[ChainLost] < 50


async def test_the_other_endpoint_is_tried_where_one_breaks_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It takes over without a pause, and stays."""
    line = StandinConnection(a={"eth_getTransactionCount": limited}, b={})
    inputs = await followed(line.service(tmp_path), 60.0)
    assert [url for url, _ in line.dialled] == ["http://a", "http://b"]
    assert [type(one) for one in inputs if isinstance(one, ChainLost | ChainRestored)] == [ChainRestored]


async def test_a_chain_that_is_away_is_lost_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Each endpoint was tried first; it is not reported again with each attempt."""
    line = StandinConnection(a={"eth_call": away}, b={"eth_call": away})
    inputs = await followed(line.service(tmp_path), 300.0)
    assert inputs == [ChainLost("gone")]
    assert {url for url, _ in line.dialled} == set(line.urls)


async def test_an_endpoint_that_lags_is_left_for_another(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Four blocks behind what the node has seen: it is not followed back, and the other endpoint takes over."""
    heads = iter([TIP, TIP, TIP - 4])

    def latest(number: str, _: bool) -> Any:
        return block(next(heads, TIP - 4) if number == "latest" else int(number, 16))

    line = StandinConnection(a={"eth_getBlockByNumber": latest}, b={})
    inputs = await followed(line.service(tmp_path), 60.0)
    assert [url for url, _ in line.dialled] == ["http://a", "http://b"]
    assert Counter(type(one) for one in inputs)[StageOpened] == 2, "the present stage, once a connection"
    assert not any(one.rewound for one in inputs if isinstance(one, StageOpened))


async def test_what_every_endpoint_says_for_long_is_believed(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A chain that was cut back, and makes no new block for minutes, is followed in the end."""
    heads = iter([TIP, TIP])

    def latest(number: str, _: bool) -> Any:
        return block(next(heads, TIP - 4) if number == "latest" else int(number, 16))

    line = StandinConnection(a={"eth_getBlockByNumber": latest})
    await followed(line.service(tmp_path), 2 * LAG_SECONDS)
    until = len(line.dialled)
    assert until > 3
    assert line.dialled[-1][1] - line.dialled[0][1] < LAG_SECONDS + 2 * LAST_PAUSE


async def test_an_endpoint_of_another_chain_is_left(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Behind the same URL a provider may serve another chain: nothing is signed for it."""
    line = StandinConnection(a={"eth_chainId": lambda: "0x1"}, b={})
    inputs = await followed(line.service(tmp_path), 60.0, REWARD)
    assert [url for url, _ in line.dialled] == ["http://a", "http://b"]
    assert [type(one) for one in inputs if isinstance(one, ChainLost | ChainRestored)] == [ChainRestored]


async def test_an_endpoint_gets_the_pause_that_it_asks_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A provider that says "retry after a minute" is dialled once a minute, not every few seconds."""

    def refused(*_: Any) -> NoReturn:
        error = ConnectionLostError("429, retry after 60 s")
        error.retry_after = 60.0
        raise error

    line = StandinConnection(a={"eth_call": refused})
    await followed(line.service(tmp_path), 300.0)
    assert all(later - at >= 60.0 for (_, at), (_, later) in pairwise(line.dialled))
    assert len(line.dialled) == 5


async def test_a_providers_key_stays_out_of_the_journal(tmp_path: Path, autojump_clock: MockClock) -> None:
    """httpx names the URL in its errors, and the reason for the loss is an input."""

    def refused(*_: Any) -> NoReturn:
        raise ConnectionLostError("eth_call: 401 for url 'https://rpc.example/v3/0123456789abcdef0123456789abcdef?k=1'")

    (lost,) = await followed(StandinConnection(a={"eth_call": refused}).service(tmp_path), 5.0)
    assert lost == ChainLost("eth_call: 401 for url 'https://rpc.example/v3/…'")


async def test_a_nonce_that_is_too_low_is_no_hot_loop(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While receipts lag behind nonces the command is signed anew a few times in a second at most."""

    def low(*_: Any) -> NoReturn:
        raise RpcError(-32000, "nonce too low")

    line = StandinConnection(a={"eth_sendRawTransaction": low})
    await followed(line.service(tmp_path), 10.0, REWARD)
    assert 10 <= line.asked["eth_sendRawTransaction"] <= 25


@settings(max_examples=50, deadline=None)
@given(urls=st.sampled_from(["a", "ab", "abc"]), sessions=st.lists(st.sampled_from([0.0, 1.0, 9.0, 11.0]), max_size=20))
def test_pauses_grow_until_a_session_is_steady(urls: str, sessions: list[float]) -> None:
    """No two attempts at one endpoint follow each other without a pause, unless the first of them was steady; pauses
    double up to the longest, and a steady session begins anew."""
    attempts = EndpointFailover(urls, 10.0)
    tried = [(attempts.url, 0.0, 0.0)]
    for worked in sessions:
        attempts.session_ended(worked)
        tried.append((attempts.url, attempts.pause, worked))
    for (url, before, _), (again, pause, worked) in pairwise(tried):
        assert pause <= 10.0
        assert worked > 10.0 or pause >= before
        assert url != again or pause >= FIRST_PAUSE or worked > 10.0


def test_the_longest_pause_is_reached() -> None:
    """However often one endpoint fails."""
    attempts = EndpointFailover(["a"], 10.0)
    for _ in range(1000):
        attempts.session_ended(0.0)
    assert attempts.pause == pytest.approx(10.0)
