"""The two phase machines of the node, as tables: its work in a stage, and a vote. Pure; the code runs from them.

A table maps (phase, event) to the next phase. None is the phase before the first. A pair that is not in a table can't
happen: looking it up raises `PhaseError`, a defect of the machine and nothing that others can cause. A phase changes
nowhere else than in `becomes_work` and `becomes_vote`.

Work: a stage opens, the node generates rollouts and publishes them, trains on its own and on others', and is done. Work
that can't be finished in time is given up, and the stage counts as skipped. When a reorg leads back to a stage that was
worked in, its work goes on where the node's own body says that it was.

Votes: planned when a round has ended, sent in the stage in which the contract takes them. A sealed vote is committed
first and revealed in a later stage; an open one is done with its one transaction. A reorg opens windows again: the same
vote is sent once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, TypeVar

WorkPhase: TypeAlias = Literal["generate", "train", "done", "skipped"]
"""What is next; `State.task` says whether the trainer is at it."""

WorkEvent: TypeAlias = Literal[
    "stage opened",
    "stage opened again, published",
    "stage opened again, trained",
    "stage opened again, nothing made",
    "rollouts published",
    "training finished",
    "given up",
]

VotePhase: TypeAlias = Literal["planned", "committing", "committed", "revealing", "done", "failed"]
"""`committing` is also an open vote on its way."""

VoteEvent: TypeAlias = Literal[
    "round ranked",
    "vote stage opened",
    "commitment settled",
    "reveal stage opened",
    "reveal settled",
    "open vote settled",
    "refused",
    "window closed",
    "window opened again",
]

Phase = TypeVar("Phase", bound=str)
Event = TypeVar("Event", bound=str)
Table: TypeAlias = Mapping[tuple[Phase | None, Event], Phase]

WORK: Table[WorkPhase, WorkEvent] = {
    (None, "stage opened"): "generate",
    (None, "stage opened again, published"): "train",
    (None, "stage opened again, trained"): "done",
    (None, "stage opened again, nothing made"): "skipped",
    ("generate", "rollouts published"): "train",
    ("train", "training finished"): "done",
    ("generate", "given up"): "skipped",
    ("train", "given up"): "skipped",
}

VOTE: Table[VotePhase, VoteEvent] = {
    (None, "round ranked"): "planned",
    ("planned", "vote stage opened"): "committing",
    ("committing", "commitment settled"): "committed",
    ("committing", "open vote settled"): "done",
    ("committed", "reveal stage opened"): "revealing",
    ("revealing", "reveal settled"): "done",
    # What the chain takes in order after this node gave it up counts all the same.
    ("failed", "open vote settled"): "done",
    ("failed", "reveal settled"): "done",
    ("committing", "refused"): "failed",
    ("revealing", "refused"): "failed",
    ("planned", "window closed"): "failed",
    ("committing", "window closed"): "failed",
    ("committed", "window closed"): "failed",
    ("revealing", "window closed"): "failed",
    ("planned", "window opened again"): "planned",
    ("committing", "window opened again"): "planned",
    ("committed", "window opened again"): "planned",
    ("revealing", "window opened again"): "planned",
    ("done", "window opened again"): "planned",
}

CLOSED: frozenset[VotePhase] = frozenset({"done", "failed"})
"""Phases in which a vote asks for nothing more."""


class PhaseError(AssertionError):
    """An event came in a phase for which the table has no row."""


def becomes_work(phase: WorkPhase | None, event: WorkEvent) -> WorkPhase:
    """Return the phase of the work after an event. Raises `PhaseError`."""
    return _next("work", WORK, phase, event)


def becomes_vote(phase: VotePhase | None, event: VoteEvent) -> VotePhase:
    """Return the phase of a vote after an event. Raises `PhaseError`."""
    return _next("vote", VOTE, phase, event)


def _next(name: str, table: Table[Phase, Event], phase: Phase | None, event: Event) -> Phase:
    following = table.get((phase, event))
    if following is None:
        raise PhaseError(f"{name}: {event!r} can't happen in phase {phase!r}")
    return following
