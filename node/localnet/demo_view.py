"""The live view of a demo: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from node.localnet.demo_plan import DemoPlan
from node.localnet.demo_summary import percent, rounds_done
from node.localnet.demo_watch import Sighting, Snapshot

LINE_SECONDS = 10.0
"""Seconds between two plain lines."""


class View(Protocol):
    """Where the demo reports its progress."""

    def step(self, text: str) -> None:
        """Show a step of the preparation."""

    def show(self, plan: DemoPlan, snapshot: Snapshot) -> None:
        """Show the swarm."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        """Close the view; its last content stays visible."""


def view_for(stream: TextIO, title: str = "") -> View:
    """Return the live view for a terminal, plain lines for anything else."""
    return LiveView(Console(file=stream), title) if stream.isatty() else PlainView(stream, title)


class LiveView:
    """A table redrawn in place."""

    def __init__(self, console: Console, title: str = "") -> None:
        self._title = title
        self._live = Live(Text(title), console=console, refresh_per_second=4, transient=False)

    def step(self, text: str) -> None:
        """Show one line instead of the table."""
        self._live.update(Text.assemble((f"{self._title}  " if self._title else "", "bold"), text))

    def show(self, plan: DemoPlan, snapshot: Snapshot) -> None:
        """Show the table."""
        self._live.update(picture(plan, snapshot, self._title))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()


class PlainView:
    """One line per step, and one every few seconds while the swarm runs."""

    def __init__(self, stream: TextIO = sys.stdout, title: str = "") -> None:
        self._stream, self._title = stream, title
        self._round = -2
        self._due = 0.0

    def step(self, text: str) -> None:
        """Write a line."""
        print(": ".join(part for part in (self._title, text) if part), file=self._stream, flush=True)

    def show(self, plan: DemoPlan, snapshot: Snapshot) -> None:
        """Write a line if the round is new and the last line some seconds old."""
        moment = time.monotonic()
        if snapshot.round != self._round and moment >= self._due:
            self._round, self._due = snapshot.round, moment + LINE_SECONDS
            self.step(line(plan, snapshot))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        return None


def line(plan: DemoPlan, snapshot: Snapshot) -> str:
    """Return the swarm in one line."""
    seen = [sighting.status for sighting in snapshot.sightings if sighting.status]
    measured = [status.accuracy for status in seen if status.curve]
    accuracy = percent(sum(measured) / len(measured)) if measured else "not measured yet"
    external = sum(status.totals.external_groups for status in seen)
    return (
        f"round {max(0, snapshot.round)} ({rounds_done(plan, snapshot)} of {plan.rounds} done), "
        f"held-out accuracy {accuracy}, {external} external groups trained on, {len(snapshot.votes)} votes on chain, "
        f"{snapshot.memory / 2**20:.0f} MiB"
    )


def picture(plan: DemoPlan, snapshot: Snapshot, title: str = "") -> RenderableType:
    """Return the live view: a header line, a row per peer, and why peers skip work."""
    table = Table(title_justify="left", expand=False)
    for name, justify in COLUMNS:
        table.add_column(name, justify="right" if justify else "left", no_wrap=True)
    for seen in snapshot.sightings:
        table.add_row(*row(seen, snapshot), style="dim" if seen.status is None else "")
    notes = [Text(f"{seen.peer.name}: {text}", style="yellow") for seen in snapshot.sightings if (text := _note(seen))]
    return Group(Text(head(plan, snapshot, title), style="bold"), table, *notes)


COLUMNS = (
    ("peer", False), ("name", False), ("phase", False), ("reward", True), ("held-out", True), ("gain", True),
    ("own", True), ("external", True), ("votes", True), ("peers", True), ("skipped", True),
)  # fmt: skip


def head(plan: DemoPlan, snapshot: Snapshot, title: str = "") -> str:
    """Return round, stage, time to the deadline, votes and memory in one line."""
    newest = snapshot.newest
    if newest is None or newest.round < 0:
        where = "the nodes are starting"
    else:
        stage = plan.manifest.stages[newest.stage].name
        left = max(0.0, newest.deadline - snapshot.at)
        where = (
            f"round {newest.round} ({rounds_done(plan, snapshot)} of {plan.rounds} done)   stage {stage}   "
            f"{left:.0f} s to the deadline"
        )
    parts = [title, where, f"{len(snapshot.votes)} votes on chain", f"{snapshot.memory / 2**20:.0f} MiB"]
    return "   ".join(part for part in parts if part)


def row(seen: Sighting, snapshot: Snapshot) -> list[str]:
    """Return one peer's cells, in the order of `COLUMNS`."""
    peer, status = seen.peer, seen.status
    if status is None:
        return [str(peer.number), peer.name, "starting", *[""] * (len(COLUMNS) - 3)]
    gain = 100 * (status.curve[-1].accuracy - status.curve[0].accuracy) if status.curve else 0.0
    return [
        str(peer.number),
        peer.name,
        status.phase if status.trainer == "present" or status.phase == "draining" else f"{status.phase}, no trainer",
        f"{status.reward:.2f}" if status.rewards else "",
        percent(status.accuracy) if status.curve else "",
        f"{gain:+.1f}" if len(status.curve) > 1 else "",
        str(status.totals.own_groups),
        str(status.totals.external_groups),
        str(snapshot.votes_of(peer.address)),
        str(status.connected),
        str(status.totals.stages_skipped) if status.totals.stages_skipped else "",
    ]


def _note(seen: Sighting) -> str:
    status = seen.status
    if status is None:
        return ""
    return status.note or status.last_skip
