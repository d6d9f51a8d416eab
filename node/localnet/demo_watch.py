"""Watches a running demo: every node's status, and the votes on chain. Read-only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec

from contracts import contract_at
from node.machine.status import Status
from protocols.identifiers import Address
from protocols.tally import read_votes

ANSWER_SECONDS = 3.0


class SeenVote(msgspec.Struct, frozen=True, kw_only=True):
    """A vote on chain; `transaction` is the one that submitted (revealed) the winners."""

    round: int
    voter: Address
    winners: tuple[Address, ...]
    transaction: str


class WatchedPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the demo; `number` counts from 1."""

    number: int
    name: str
    address: Address
    slow: bool = False


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One node as last seen; `status` is None until its first answer. `skips` has each reason once."""

    peer: WatchedPeer
    status: Status | None = None
    skips: tuple[str, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole demo at one time (Unix seconds)."""

    at: float
    sightings: tuple[Sighting, ...]
    votes: tuple[SeenVote, ...] = ()
    memory: int = 0
    memory_peak: int = 0

    @property
    def round(self) -> int:
        """The newest round that any node knows, -1 before the first."""
        return max((seen.status.round for seen in self.sightings if seen.status), default=-1)

    @property
    def newest(self) -> Status | None:
        """The status of a node that knows the newest stage."""
        known = [seen.status for seen in self.sightings if seen.status]
        return max(known, key=lambda status: (status.round, status.stage), default=None)

    def votes_of(self, address: Address) -> int:
        """Return the number of a peer's votes on chain."""
        return sum(vote.voter == address for vote in self.votes)


def seen(before: Sighting, status: Status | None) -> Sighting:
    """Return a sighting updated with a node's status; it is unchanged if the node does not answer."""
    if status is None:
        return before
    new = (status.last_skip,) if status.last_skip and status.last_skip not in before.skips else ()
    return msgspec.structs.replace(before, status=status, skips=(*before.skips, *new))


class NodeReader:
    """Reads the nodes' statuses from the address that each has written into its data directory."""

    def __init__(self) -> None:
        self._client = httpx.Client(timeout=ANSWER_SECONDS, trust_env=False)
        self._decoder = msgspec.json.Decoder(Status)

    def status(self, directory: Path) -> Status | None:
        """Return a node's status, None while it does not answer."""
        url = node_url(directory)
        if url is None:
            return None
        try:
            answer = self._client.get(f"{url}/status.json")
            answer.raise_for_status()
        except httpx.HTTPError:
            return None
        return self._decoder.decode(answer.content)

    def close(self) -> None:
        """Close connections."""
        self._client.close()


class VoteReader:
    """Reads the votes on chain, each block once, and all again after a reorg or a restart of the chain."""

    def __init__(self, url: str, contract: Address) -> None:
        self._contract = contract_at(url, contract)
        self._read: tuple[int, bytes] = (-1, b"")
        self._votes: tuple[SeenVote, ...] = ()

    def votes(self) -> tuple[SeenVote, ...]:
        """Return every vote so far, in chain order. Raises web3's errors while the chain is down."""
        newest = self._contract.w3.eth.get_block("latest")
        number = int(newest["number"])
        if self._rewritten(number):
            self._read, self._votes = (-1, b""), ()
        first = self._read[0] + 1
        if number >= first:
            logs = self._contract.events.VotesCounted().get_logs(from_block=first, to_block=number)
            self._votes += tuple(vote for log in logs for vote in _votes(log))
            self._read = (number, bytes(newest["hash"]))
        return self._votes

    def _rewritten(self, newest: int) -> bool:
        """Return True if the last block that was read is no longer in the chain."""
        number, known = self._read
        if number < 0:
            return False
        return newest < number or bytes(self._contract.w3.eth.get_block(number)["hash"]) != known


def _votes(log: Any) -> list[SeenVote]:
    said, transaction = log["args"], str(log["transactionHash"].to_0x_hex())
    return [
        SeenVote(round=vote.round, voter=vote.voter, winners=vote.winners, transaction=transaction)
        for vote in read_votes(int(said["round"]), said["names"], bytes(said["votes"]))
    ]


def node_url(directory: Path) -> str | None:
    """Return the URL of a node's status, None while it does not serve it."""
    try:
        said: dict[str, Any] = msgspec.json.decode((directory / "http.json").read_bytes())
    except (OSError, ValueError):
        return None
    return str(said["url"])
