"""From the block follower's updates to the machine's inputs: confirmations, registrations, stages. Pure."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec

from node.chain.contract.binding import CoordinatorBinding
from node.chain.rpc.blocks import BlockAdded, BlockUndone, ChainReset, Log, RangeFilled, Update
from node.machine.inputs import PauseChanged, PeerRegistered, StageOpened
from protocols.identifiers import Address

News: TypeAlias = PeerRegistered | StageOpened | PauseChanged


class StageTracker:
    """Collects what is in the blocks. A block counts once `confirmations` more lie on top of it."""

    def __init__(self, confirmations: int, binding: CoordinatorBinding) -> None:
        self.stale = True
        """The blocks taken do not show the present stage: it has to be read from the contract."""
        self.peers: dict[Address, PeerRegistered] = {}
        self._reported: dict[Address, PeerRegistered] = {}
        self._confirmations, self._binding = confirmations, binding
        self._waiting: deque[BlockAdded] = deque()
        self._news: list[News] = []
        self._last: StageOpened | None = None
        self._paused = 0
        self._repeat = True

    def take(self, update: Update) -> None:
        """Take one update of the block follower."""
        match update:
            case BlockAdded():
                self._waiting.append(update)
                if len(self._waiting) > self._confirmations:
                    self._count(self._waiting.popleft())
            case BlockUndone() if self._waiting:
                self._waiting.pop()
            case BlockUndone():
                self._forget(update.logs)
            case RangeFilled():
                self.stale = True
                self._register(update.logs)
            case ChainReset():
                self.stale = True
                self._waiting.clear()
                self.peers.clear()
                self._news.clear()
                self._binding.reset()

    def news(self) -> list[News]:
        """Return what is new since the last call, in order."""
        news, self._news = self._news, []
        if self.stale:
            return [one for one in news if isinstance(one, PeerRegistered)]
        for one in news:
            match one:
                case StageOpened():
                    self._last = one
                case PauseChanged() if self._last:
                    self._paused = one.until
                    self._last = msgspec.structs.replace(self._last, deadline=one.deadline)
        return news

    def read(self, stage: StageOpened, paused: int) -> list[News]:
        """Take the stage and the end of the pause, as read from the contract; return what is new."""
        opened = self._read(stage)
        news: list[News] = [opened] if opened else []
        if paused != self._paused:
            self._paused = paused
            news.append(PauseChanged(stage.round, stage.stage, paused, stage.deadline))
        return news

    def _read(self, stage: StageOpened) -> StageOpened | None:
        """Return the input for a stage, None where it is known. One that does not follow the last is a reorg's."""
        last, self._last = self._last, stage
        repeat, self._repeat, self.stale = self._repeat, False, False
        if last is None or _follows(last, stage):
            return stage
        if (last.round, last.stage, last.seed, last.deadline) == (stage.round, stage.stage, stage.seed, stage.deadline):
            return stage if repeat else None
        return msgspec.structs.replace(stage, rewound=True)

    def restart(self) -> list[PeerRegistered]:
        """Start over after a (re)connection: the present stage is reported again, and the peers that were not yet."""
        self.stale = self._repeat = True
        self._news.clear()
        return [peer for peer in self.peers.values() if self._reported.get(peer.peer) != peer]

    def reported(self, news: News) -> None:
        """Note that the node has taken what this found: a registration is not reported again."""
        if isinstance(news, PeerRegistered):
            self._reported[news.peer] = news

    def _count(self, block: BlockAdded) -> None:
        self._register(block.logs)
        for log in block.logs:
            stage = self._binding.stage_opened(log, block.head)
            if stage:
                self._news.append(stage)
            if pause := self._binding.pause_changed(log):
                self._pause(*pause)

    def _pause(self, until: int, deadline: int) -> None:
        opened = next((one for one in reversed(self._news) if isinstance(one, StageOpened)), self._last)
        if opened:
            self._news.append(PauseChanged(opened.round, opened.stage, until, deadline))

    def _register(self, logs: list[Log]) -> None:
        for log in logs:
            peer = self._binding.peer_registered(log)
            if peer:
                self.peers[peer.peer] = peer
                if self._reported.get(peer.peer) != peer:
                    self._news.append(peer)

    def _forget(self, logs: list[Log]) -> None:
        self.stale = True
        for log in logs:
            peer = self._binding.peer_forgotten(log)
            if peer:
                self.peers.pop(peer, None)
                self._reported.pop(peer, None)


def _follows(last: StageOpened, stage: StageOpened) -> bool:
    """Return True if the clock just went on: later, and not with another seed in the same round."""
    later = (last.round, last.stage) < (stage.round, stage.stage)
    return later and (last.round != stage.round or last.seed == stage.seed)


class ClockOffset:
    """Chain time minus local time in seconds, from the timestamps of blocks as they arrive.

    By the chain's clock no block arrives before its timestamp: of a few differences the largest is the best estimate.
    """

    SAMPLES = 8
    LEAST = 3

    def __init__(self, timestamp: int, now: float) -> None:
        self.value = max(0.0, timestamp - now)
        """The newest block may be old while both clocks are right: a negative offset needs several blocks."""
        self._differences: deque[float] = deque(maxlen=self.SAMPLES)

    def arrived(self, timestamp: int, now: float, tolerance: float = 2.0) -> bool:
        """Take a new block; return True if the offset moved by more than `tolerance` seconds."""
        self._differences.append(timestamp - now)
        if len(self._differences) < self.LEAST:
            return False
        measured = max(self._differences)
        if abs(measured - self.value) <= tolerance:
            return False
        self.value = measured
        return True
