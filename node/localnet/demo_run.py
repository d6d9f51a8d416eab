"""One demo from start to summary: run the swarm, watch it, save the results."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from node.localnet.demo_plan import DemoPlan
from node.localnet.demo_summary import DemoSummary, finished, summed_up
from node.localnet.demo_view import View
from node.localnet.local_swarm import LocalSwarm
from node.localnet.processes import DemoError

LOOK_SECONDS = 0.7


def run_swarm(
    plan: DemoPlan, home: Path, view: View, *, builtin: Path | None = None, keys: Path | None = None
) -> DemoSummary:
    """Run a swarm to the end of its last round and return the summary; none of its processes remains.

    Raises `DemoError`, KeyboardInterrupt.
    """
    began = time.monotonic()
    with LocalSwarm(plan, home, builtin=builtin, keys=keys) as network:
        network.start(view.step)
        limit = time.monotonic() + plan.longest_seconds
        snapshot = network.look()
        while not finished(plan, snapshot):
            view.show(plan, snapshot)
            time.sleep(LOOK_SECONDS)
            snapshot = network.look()
            if time.monotonic() > limit:
                raise DemoError(f"round {snapshot.round} after {plan.longest_seconds:.0f} s; see the logs in {home}")
        view.show(plan, snapshot)
        snapshot = network.drain(view.step)
        view.show(plan, snapshot)
        seconds, contract = time.monotonic() - began, network.contract
        self_played = network.self_play(view.step) if plan.answers_twice else ()
    return summed_up(plan, snapshot, seconds=seconds, contract=contract, self_played=self_played)


def write_json(summary: msgspec.Struct, path: Path) -> None:
    """Write a summary as readable JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")


@contextmanager
def workplace(out: Path, keep: bool) -> Iterator[Path]:
    """Yield a fresh directory for the nodes' data: kept as OUT/run if requested, else removed at the end.

    After a `DemoError` it always stays, for its logs.
    """
    if keep:
        home = out / "run"
        if home.exists():
            raise DemoError(f"{home} exists; remove it, or choose another directory with --out")
        home.mkdir(parents=True)
        yield home
        return
    home = Path(tempfile.mkdtemp(prefix="swarm-demo-"))
    with ExitStack() as removed:
        removed.callback(shutil.rmtree, home, ignore_errors=True)
        try:
            yield home
        except DemoError as error:
            removed.pop_all()
            raise DemoError(f"{error} (data and logs are kept in {home})") from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the demo like Ctrl-C, which ends its children too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
