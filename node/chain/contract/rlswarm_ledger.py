"""What is known of RL Swarm's contract: its clock, its peers and their ids, what it takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from eth_abi.exceptions import DecodingError

from contracts import load_artifact
from node.chain.contract.abi import Abi, DecodedEvent
from node.chain.contract.rlswarm_clock import RLSwarmClock, StageOpening
from node.chain.rpc.blocks import BlockHead, Log
from node.identity.local_peer import address_of_peer_id
from node.machine.inputs import PeerRegistered, StageOpened
from protocols.identifiers import Address

ABI = Abi(load_artifact("RLSwarmCoordinator").abi)

PEERS, ROUNDS, STAGES = (ABI.topic(name) for name in ("PeerRegistered", "RoundAdvanced", "StageAdvanced"))

SIGNED, UNSIGNED = (f"submitReward(uint256,uint256,{kind},string)" for kind in ("int256", "uint256"))
"""The reward function of newer and of older releases."""

BEFORE = (-1, -1)
"""A position before every log."""


class RLSwarmLedger:
    """Kept up to date by the stage tracker's logs, in order; the reader starts its clock. `me` is this account."""

    def __init__(self, contract: Address, me: Address, peer_id: str, seconds: Sequence[int]) -> None:
        self.me, self.peer_id = me, peer_id
        self.clock = RLSwarmClock(contract, seconds)
        self.peer_ids: dict[Address, str] = {}
        self.deployed = -1
        """The block with the contract's creation; -1 until it was found."""
        self.signed = True
        """Whether the contract takes rewards as signed numbers."""
        self.skipped: set[str] = set()
        """Bootnodes that were logged as undialable."""
        self._round = 0
        self._at = BEFORE

    def peer_registered(self, log: Log) -> PeerRegistered | None:
        """Return the input for a registration; it counts from the round after the one that was open then.

        This node's own peer id under another account is not this node, and is ignored. A log that is not later than
        the last one starts the whole history over: an endpoint failed while it was read.
        """
        if position_of(log) <= self._at:
            self._round = 0
        self._at = position_of(log)
        event = event_of(log)
        if event is None:
            return None
        if event.name == "RoundAdvanced":
            self._round = event.fields["newRoundNumber"]
        peer = self._peer(event)
        if peer is None:
            return None
        self.peer_ids[peer] = event.fields["peerId"]
        return PeerRegistered(peer, self._round + 1)

    def stage_opened(self, log: Log, head: BlockHead) -> StageOpened | None:
        """Return the input for a log that opens a stage."""
        place = place_of(log)
        if place is None:
            return None
        return self.clock.opened(StageOpening(*place, head.timestamp, head.number, bytes.fromhex(head.hash[2:])))

    def peer_forgotten(self, log: Log) -> Address | None:
        """Take a log back; return the peer whose registration it was."""
        event, place = event_of(log), place_of(log)
        block, index = position_of(log)
        self._at = block, index - 1
        if place is not None:
            self.clock.undone(*place)
        if event is not None and event.name == "RoundAdvanced":
            self._round = event.fields["newRoundNumber"] - 1
        peer = self._peer(event) if event else None
        if peer is not None:
            self.peer_ids.pop(peer, None)
        return peer

    def reset(self) -> None:
        """Forget every log."""
        self._round, self._at = 0, BEFORE
        self.peer_ids.clear()
        self.clock.resume(())

    def _peer(self, event: DecodedEvent) -> Address | None:
        if event.name != "PeerRegistered":
            return None
        peer_id = event.fields["peerId"]
        if peer_id == self.peer_id and event.fields["account"].lower() != self.me:
            return None
        try:
            return address_of_peer_id(peer_id)
        except ValueError:
            return None


def position_of(log: Log) -> tuple[int, int]:
    """Return a log's block and its place in there."""
    return int(log["blockNumber"], 16), int(log["logIndex"], 16)


def event_of(log: Log) -> DecodedEvent | None:
    """Return a registration or an opening; None for other logs, and for text that is not UTF-8."""
    if not log["topics"] or log["topics"][0] not in (PEERS, ROUNDS, STAGES):
        return None
    try:
        return ABI.event(log)
    except DecodingError:
        return None


def place_of(log: Log) -> tuple[int, int] | None:
    """Return the round and stage that a log opens. By release, a new round has one event or two."""
    event = event_of(log)
    match event:
        case DecodedEvent(name="RoundAdvanced"):
            return event.fields["newRoundNumber"], 0
        case DecodedEvent(name="StageAdvanced"):
            return event.fields["roundNumber"], event.fields["newStage"]
        case _:
            return None
