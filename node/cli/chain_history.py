"""Reads the contract's history from one endpoint: logs in ranges that it accepts, and blocks by time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from node.chain.contract.abi import DecodedEvent
from node.chain.contract.swarm import ABI
from node.chain.rpc.blocks import Log
from node.chain.rpc.client import RpcError
from node.exits import Exit, Refusal
from node.explain.round_facts import PeerActivity, Trace
from node.machine.round_report import RoundReport
from protocols.identifiers import Address
from protocols.schedule import reveal_step, step_number
from protocols.signed_messages import MessageKind, MessageTopic
from protocols.tally import Registered, Rewarded, Voted, read_votes

Ask = Callable[..., Any]
"""A JSON-RPC request: method and parameters. Raises `RpcError` if the endpoint refuses it."""

WIDEST = 10_000
"""Blocks in the first query; a refused range is halved, and so are the following ones."""
MOST_QUERIES = 500

Entry = tuple[Log, DecodedEvent]


class ChainHistory:
    """The events of one contract since the block `deployed`. Raises `Refusal` if they can't be read."""

    def __init__(self, ask: Ask, contract: Address, deployed: int) -> None:
        self._ask, self._contract, self._deployed = ask, contract, deployed
        self._width, self._queries = WIDEST, 0

    # --- what the commands want ---------------------------------------------------------------------------------

    def of_round(self, account: RoundReport, seconds: Sequence[int]) -> PeerActivity:
        """Return the votes of a round and where this node's messages for it are; owners are left empty. `seconds` are
        the lengths of a round's stages."""
        kinds = ("VotesCounted", "VoteCommitted", "RewardSubmitted", "RoundAdvanced", "StageAdvanced")
        traces: dict[MessageTopic, Trace] = {}
        votes: list[Voted] = []
        first = self.block_at(account.opened - sum(seconds))
        for log, event in self._events(kinds, first, self._newest()):
            if is_beyond(event, reveal_step(account.round, len(seconds)), len(seconds)):
                break
            if event.fields["round"] != account.round:
                continue
            cast = votes_in(event)
            votes += cast
            topic = _own_topic(event, cast, account)
            if topic:
                transaction = str(log["transactionHash"])
                traces[topic] = Trace(transaction, int(log["blockNumber"], 16), self.sender(transaction))
        return PeerActivity(traces=traces, votes=tuple(votes))

    def since_round(self, first: int) -> tuple[list[Registered], list[Voted], list[Rewarded]]:
        """Return registrations, votes and rewards, read backwards to the beginning of round `first`. Earlier
        registrations are missing. Votes and rewards are those for rounds from `first` on."""
        kinds = ("VotesCounted", "RewardSubmitted", "PeerRegistered", "RoundAdvanced")
        registered: list[Registered] = []
        votes: list[Voted] = []
        rewards: list[Rewarded] = []
        for _, event in self._events(kinds, self._deployed, self._newest(), backwards=True):
            said = event.fields
            if event.name == "RoundAdvanced" and said["round"] <= first:
                break
            if event.name == "PeerRegistered":
                registered.append(Registered(said["node"].lower(), said["owner"].lower()))
            if event.name == "RewardSubmitted" and said["round"] >= first:
                rewards.append(Rewarded(said["round"], said["stage"], said["node"].lower(), said["reward"]))
            votes += [vote for vote in votes_in(event) if vote.round >= first]
        return registered, votes, rewards

    def sender(self, transaction: str) -> Address:
        """Return the sender of a transaction, "" if the endpoint does not know it."""
        found = self._request("eth_getTransactionByHash", transaction)
        return str(found["from"]).lower() if found else ""

    def block_at(self, timestamp: int) -> int:
        """Return the first block since the deployment that is not older than a time in chain seconds."""
        low, high = self._deployed, self._newest()
        while low < high:
            middle = (low + high) // 2
            block = self._request("eth_getBlockByNumber", hex(middle), False)
            if block is not None and int(block["timestamp"], 16) >= timestamp:
                high = middle
            else:
                low = middle + 1
        return low

    # --- queries ------------------------------------------------------------------------------------------------

    def _newest(self) -> int:
        return int(self._request("eth_blockNumber"), 16)

    def _request(self, method: str, *parameters: object) -> Any:
        try:
            return self._ask(method, *parameters)
        except RpcError as error:
            raise Refusal(
                Exit.CHAIN, f"the endpoint refuses {method}: {error}; try another one with --chain-url"
            ) from error

    def _events(self, kinds: Sequence[str], first: int, last: int, *, backwards: bool = False) -> Iterator[Entry]:
        """Yield the contract's events of these kinds in chain order, or in reverse."""
        topics = [[ABI.topic(kind) for kind in kinds]]
        while first <= last:
            width = min(self._width, last - first + 1)
            start = last - width + 1 if backwards else first
            logs = self._logs(start, start + width - 1, topics)
            if logs is None:
                continue
            for log in reversed(logs) if backwards else logs:
                event = ABI.event(log)
                if event is not None:
                    yield log, event
            first, last = (first, start - 1) if backwards else (start + width, last)

    def _logs(self, start: int, end: int, topics: list[list[str]]) -> list[Log] | None:
        """Return the logs of a range; if it is too wide for the endpoint, narrow the range and return None."""
        self._queries += 1
        if self._queries > MOST_QUERIES:
            raise Refusal(
                Exit.CHAIN,
                f"this takes more than {MOST_QUERIES} queries, since the endpoint gives logs of {self._width} blocks "
                "at a time; ask for fewer rounds, or use another endpoint with --chain-url",
            )
        asked = {"address": self._contract, "topics": topics, "fromBlock": hex(start), "toBlock": hex(end)}
        try:
            found: list[Log] = self._ask("eth_getLogs", asked)
        except RpcError as error:
            if start == end:
                text = f"the endpoint returns no logs: {error}; try another one with --chain-url"
                raise Refusal(Exit.CHAIN, text) from error
            self._width = (end - start + 1) // 2
            return None
        return found


def votes_in(event: DecodedEvent) -> tuple[Voted, ...]:
    """Return the votes in an event."""
    if event.name != "VotesCounted":
        return ()
    return read_votes(event.fields["round"], event.fields["names"], event.fields["votes"])


def is_beyond(event: DecodedEvent, step: int, stages: int) -> bool:
    """Return True if an event opens a stage after a step of the contract's clock."""
    if event.name not in ("RoundAdvanced", "StageAdvanced"):
        return False
    return step_number(event.fields["round"], event.fields.get("stage", 0), stages) > step


def _own_topic(event: DecodedEvent, cast: Sequence[Voted], account: RoundReport) -> MessageTopic | None:
    """Return which of this node's messages an event records, None for an event about other nodes."""
    if event.name == "VotesCounted":
        ballot = MessageTopic(MessageKind.REVEAL if account.sealed else MessageKind.VOTE, account.round)
        return ballot if any(vote.voter == account.me for vote in cast) else None
    if event.fields.get("node", "").lower() != account.me:
        return None
    if event.name == "VoteCommitted":
        return MessageTopic(MessageKind.COMMIT, account.round)
    return MessageTopic(MessageKind.REWARD, account.round, event.fields["stage"])
