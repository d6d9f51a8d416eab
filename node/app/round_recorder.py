"""Records the report of every round that ends, and the outcome of this node's vote on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import structlog

from node.exits import Refusal
from node.machine.round_report import build_round_report, changed_votes, ended_rounds
from node.machine.state import State
from node.store.round_reports import KEPT, RoundStore
from protocols.identifiers import Address

log = structlog.get_logger()

PeerIds = Callable[[Iterable[Address]], Mapping[Address, str]]


class RoundRecorder:
    """Follows the machine's states. A report that can't be written is logged; the node goes on."""

    def __init__(self, store: RoundStore, peer_ids: PeerIds) -> None:
        """`peer_ids` returns those that are known of the given peers."""
        self._store, self._peer_ids = store, peer_ids
        self._known = store.known()
        self._last: State | None = None

    def follow(self, state: State, at: float) -> None:
        """Take the state after an input. The first one may be that after a crash, before which nothing was written."""
        before, self._last = self._last, state
        try:
            if before is None or before.round < state.round:
                self._close(before or state, state, at)
            for vote in changed_votes(before, state):
                self._store.put_vote(vote)
        except Refusal as refused:
            log.warning("rounds.not_kept", reason=str(refused))

    def _close(self, before: State, state: State, at: float) -> None:
        for number in ended_rounds(before, state):
            if self._known.get(number) != before.seeds[number]:
                self._store.put(build_round_report(before, state, number, at, self._peer_ids(before.peers)))
                self._known[number] = before.seeds[number]
                self._known.pop(number - KEPT, None)
