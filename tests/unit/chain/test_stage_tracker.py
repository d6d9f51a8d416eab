"""What of registrations is reported, and what is not reported again."""

from __future__ import annotations

from typing import Any

from node.chain.contract.binding import SwarmBinding
from node.chain.contract.swarm import ABI
from node.chain.rpc.blocks import BlockAdded, BlockHead, BlockUndone, ChainReset, RangeFilled
from node.chain.stage_tracker import StageTracker
from node.machine.inputs import PeerRegistered

OWNER = f"0x{9:040x}"


def registered(number: int, since: int = 1) -> dict[str, Any]:
    """Return the log of a node's registration."""
    words = (since.to_bytes(32, "big") + (2**40).to_bytes(32, "big")).hex()
    return {
        "topics": [ABI.topic("PeerRegistered"), f"0x{number:064x}", f"0x{int(OWNER, 16):064x}"],
        "data": f"0x{words}",
        "blockNumber": "0x1",
        "logIndex": hex(number),
    }


def head(number: int) -> BlockHead:
    """Return a block's header."""
    return BlockHead(number, f"0x{number:064x}", f"0x{number - 1:064x}", number, 0, 1)


def taken(tracker: StageTracker) -> list[str]:
    """Report everything new; return the peers."""
    found = tracker.news()
    for one in found:
        tracker.reported(one)
    return [one.peer[-2:] for one in found if isinstance(one, PeerRegistered)]


def test_a_reconnection_reports_no_peer_again() -> None:
    """Ten thousand registrations are reported once; after a reconnection, and a history read anew, none is."""
    tracker = StageTracker(0, SwarmBinding())
    logs = [registered(number) for number in range(1, 10_001)]
    tracker.take(RangeFilled(logs, 1, 2))
    assert len(taken(tracker)) == 10_000
    assert tracker.restart() == []
    tracker.take(ChainReset())
    tracker.take(RangeFilled(logs, 1, 2))
    assert taken(tracker) == []


def test_a_peer_that_was_not_reported_yet_is_reported_after_a_reconnection() -> None:
    """The connection was lost between the block and the report."""
    tracker = StageTracker(0, SwarmBinding())
    tracker.take(RangeFilled([registered(1), registered(2)], 1, 2))
    first, second = tracker.news()
    tracker.reported(first)
    assert tracker.restart() == [second]


def test_a_peer_that_registers_later_after_a_reorg_is_reported_again() -> None:
    """Its first round has changed; one that registers again as before is reported as well, for it was forgotten."""
    tracker = StageTracker(0, SwarmBinding())
    for since in (1, 2, 2):
        block = BlockAdded(head(5), [registered(1, since)])
        tracker.take(block)
        assert taken(tracker) == ["01"]
        tracker.take(BlockUndone(block.head, block.logs))
