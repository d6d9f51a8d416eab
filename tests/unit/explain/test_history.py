"""Reading a contract's past: in ranges that the endpoint bears, no further than is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from eth_abi.abi import encode

from node.chain.contract.swarm import ABI
from node.chain.rpc.client import RpcError
from node.cli.chain_history import MOST_QUERIES, WIDEST, ChainHistory
from node.exits import Exit, Refusal
from node.explain.leaderboard_rows import Leaderboard, board_text, places_of
from node.explain.round_facts import Trace
from protocols.signed_messages import MessageKind, MessageTopic
from protocols.tally import Registered, Rewarded, Voted
from tests.support.explained_rounds import ADA, BOB, CYD, ME, NUMBER, OWNERS, PEER_IDS, account

CONTRACT = "0x" + "cc" * 20
DEPLOYED, NEWEST, BLOCK_SECONDS = 1_000, 40_000, 10
FIRST_TIME = 1_789_800_000


def word(value: int | str) -> str:
    return f"0x{int(value, 16) if isinstance(value, str) else value:064x}"


def log(block: int, event: str, topics: Sequence[int | str], types: Sequence[str], *values: object) -> dict[str, Any]:
    return {
        "blockNumber": hex(block),
        "transactionHash": word(block),
        "topics": [ABI.topic(event), *map(word, topics)],
        "data": "0x" + encode(types, values).hex(),
    }


def round_opened(block: int, number: int) -> dict[str, Any]:
    return log(block, "RoundAdvanced", [number], ["bytes32", "uint64"], bytes(32), 0)


def counted(block: int, number: int, *votes: tuple[str, str]) -> dict[str, Any]:
    names = [winner for _, winner in votes]
    packed = b"".join(
        bytes.fromhex(voter[2:]) + b"\1" + place.to_bytes(2, "big") for place, (voter, _) in enumerate(votes)
    )
    return log(block, "VotesCounted", [number], ["address[]", "bytes"], names, packed)


def rewarded(block: int, number: int, node: str) -> dict[str, Any]:
    return log(block, "RewardSubmitted", [number, 0, node], ["int256"], 500_000)


START = DEPLOYED + (account().opened - FIRST_TIME) // BLOCK_SECONDS
"""The block in which the last stage of round 7 opened."""
LOGS = [
    log(2_000, "PeerRegistered", [BOB, OWNERS[BOB]], ["uint64", "uint64"], 1, 2**31),
    counted(3_000, 2, (BOB, ADA)),
    round_opened(START - 40, NUMBER),
    rewarded(START - 5, NUMBER, ME),
    round_opened(START + 10, NUMBER + 1),
    log(START + 11, "VoteCommitted", [NUMBER, ME], ["bytes32"], bytes(32)),
    log(START + 11, "VoteCommitted", [NUMBER, ADA], ["bytes32"], bytes(32)),
    counted(START + 12, NUMBER, (ME, ADA), (BOB, ADA)),
    counted(START + 13, NUMBER, (ADA, BOB)),
    round_opened(START + 20, NUMBER + 2),
    counted(START + 21, NUMBER, (CYD, ADA)),
]


class Chain:
    """An endpoint that gives logs of at most `widest` blocks at once."""

    def __init__(self, widest: int = WIDEST) -> None:
        self.widest = widest
        self.ranges: list[tuple[int, int]] = []

    def ask(self, method: str, *parameters: Any) -> Any:
        match method:
            case "eth_blockNumber":
                return hex(NEWEST)
            case "eth_getBlockByNumber":
                return {"timestamp": hex(FIRST_TIME + BLOCK_SECONDS * (int(parameters[0], 16) - DEPLOYED))}
            case "eth_getTransactionByHash":
                return {"from": ADA.upper().replace("0X", "0x")}
            case _:
                return self._logs(parameters[0])

    def _logs(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        first, last = int(asked["fromBlock"], 16), int(asked["toBlock"], 16)
        if last - first + 1 > self.widest:
            raise RpcError(-32005, "range too wide")
        self.ranges.append((first, last))
        (kinds,) = asked["topics"]
        return [each for each in LOGS if first <= int(each["blockNumber"], 16) <= last and each["topics"][0] in kinds]


def history(chain: Chain) -> ChainHistory:
    return ChainHistory(chain.ask, CONTRACT, DEPLOYED)


@pytest.mark.parametrize("widest", [WIDEST, 700, 9])
def test_a_round_is_read_whatever_the_endpoint_bears(widest: int) -> None:
    """Its votes and where this node's messages stand, with their sender; what comes after its window is not read."""
    chain = Chain(widest)
    seen = history(chain).of_round(account(), (200, 200, 20))
    assert seen.votes == (Voted(NUMBER, ME, (ADA,)), Voted(NUMBER, BOB, (ADA,)), Voted(NUMBER, ADA, (BOB,)))
    assert seen.traces == {
        MessageTopic(MessageKind.REWARD, NUMBER, 0): Trace(word(START - 5), START - 5, ADA),
        MessageTopic(MessageKind.COMMIT, NUMBER): Trace(word(START + 11), START + 11, ADA),
        MessageTopic(MessageKind.REVEAL, NUMBER): Trace(word(START + 12), START + 12, ADA),
    }
    assert chain.ranges[0][0] == START - 42
    assert chain.ranges[-1][1] < START + 20 + widest


@pytest.mark.parametrize("widest", [WIDEST, 700])
def test_the_leaderboard_reads_back_to_its_first_round(widest: int) -> None:
    """Nothing before that round's beginning is read; without a first round, everything since the deployment."""
    chain = Chain(widest)
    registered, votes, rewards = history(chain).since_round(NUMBER)
    assert (registered, len(votes), rewards) == ([], 4, [Rewarded(NUMBER, 0, ME, 500_000)])
    assert chain.ranges[-1][0] > START - 40 - WIDEST
    registered, votes, _ = history(chain).since_round(0)
    assert (registered, len(votes)) == ([Registered(BOB, OWNERS[BOB])], 5)
    assert chain.ranges[-1][0] == DEPLOYED


def test_queries_are_bounded() -> None:
    """An endpoint with very short ranges is not asked for ever; one that gives none at all is named."""
    with pytest.raises(Refusal, match=f"more than {MOST_QUERIES} queries") as refused:
        history(Chain(9)).since_round(0)
    assert refused.value.code is Exit.CHAIN
    with pytest.raises(Refusal, match="returns no logs"):
        history(Chain(0)).since_round(0)


def test_the_leaderboard_shows_names_owners_and_shared_places() -> None:
    """Nodes with as many votes and rounds led share a place; who is not known by name is shown by address."""
    registered = [Registered(node, owner) for node, owner in OWNERS.items()]
    votes = [Voted(1, ME, (ADA,)), Voted(1, BOB, (ADA,)), Voted(1, ADA, (BOB,)), Voted(1, CYD, (ME,))]
    ids = {ADA: PEER_IDS[ADA]}
    places = places_of(registered, votes, [Rewarded(1, 0, BOB, 250_000)], ids)
    assert [each.place for each in places] == [1, 2, 2, 4]
    text = board_text(Leaderboard(contract=CONTRACT, chain=1, first=1, last=1, votes=4, places=places))
    assert "giant hunting lion" in text
    assert all(owner in text for owner in OWNERS.values())
    assert CYD in text
