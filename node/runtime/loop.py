"""The one loop from inputs to commands: journal first, then the machine, then log, subscribers and services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
import structlog
import trio

from node.logs import bind_stage
from node.machine.commands import AnyCommand, StopNode
from node.machine.inputs import AnyInput, Stamped
from node.machine.notices import Notice
from node.machine.state import Output, State
from node.machine.step import step
from node.runtime.log_events import log_line

log = structlog.get_logger()

SNAPSHOT_EVERY = 500
"""Inputs between two snapshots: replay after a crash stays far below a second."""

_states = msgspec.msgpack.Decoder(State)


class InputJournal(Protocol):
    """What the loop asks of the journal (`node.store.journal.InputJournal`)."""

    def append(self, stamped: Stamped) -> int:
        """Store an input durably; return its sequence number."""

    def since(self, sequence: int) -> Sequence[tuple[int, Stamped]]:
        """Return everything stored after `sequence`, in order."""

    def save_snapshot(self, sequence: int, snapshot: bytes) -> None:
        """Store the state as it is after `sequence`."""

    def snapshots(self) -> Sequence[tuple[int, bytes]]:
        """Return snapshots and their sequences, the newest first; every input after the last of them is kept."""


def restore(journal: InputJournal, fresh: State) -> tuple[State, int]:
    """Return the state after every journalled input and how many were replayed; their commands are not repeated.

    What was under way is asked for again by the machine when `NodeStarted` arrives. A snapshot that can't be read is
    passed over for the one before; without any the journal's remaining inputs start from the fresh state.
    """
    state, sequence = _from_snapshot(journal, fresh)
    replayed = 0
    for _, stamped in journal.since(sequence):
        state, _ = step(state, stamped)
        replayed += 1
    return state, replayed


def _from_snapshot(journal: InputJournal, fresh: State) -> tuple[State, int]:
    for sequence, snapshot in journal.snapshots():
        try:
            return _states.decode(snapshot), sequence
        except ValueError as error:
            log.warning("snapshot.unreadable", reason=str(error))
    return fresh, 0


class Loop:
    """Owns the state. `dispatch` hands a command to its service; `publish` hands all outputs to subscribers."""

    def __init__(
        self,
        journal: InputJournal,
        state: State,
        dispatch: Callable[[AnyCommand], Awaitable[None]],
        publish: Callable[[Stamped, tuple[Output, ...]], None],
        now: Callable[[], float],
    ) -> None:
        self.state = state
        self._journal = journal
        self._dispatch = dispatch
        self._publish = publish
        self._now = now
        self._unsaved = 0

    async def take(self, happened: AnyInput) -> StopNode | None:
        """Take one input through journal, machine and services. Returns the command to stop, if the machine said so."""
        stamped = Stamped(self._now(), happened)
        sequence = self._journal.append(stamped)
        self.state, outputs = step(self.state, stamped)
        self._log(happened, outputs)
        self._publish(stamped, outputs)
        stop = None
        for output in outputs:
            if isinstance(output, Notice):
                continue
            await self._dispatch(output)
            stop = output if isinstance(output, StopNode) else stop
        self._unsaved += 1
        if stop or self._unsaved >= SNAPSHOT_EVERY:
            self._journal.save_snapshot(sequence, msgspec.msgpack.encode(self.state))
            self._unsaved = 0
        await trio.lowlevel.checkpoint()
        return stop

    def _log(self, happened: AnyInput, outputs: tuple[Output, ...]) -> None:
        bind_stage(self.state.round, self.state.stage)
        for each in (happened, *outputs):
            line = log_line(each)
            if line:
                level, event, fields = line
                log.log(LEVELS[level], event, **fields)


LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
