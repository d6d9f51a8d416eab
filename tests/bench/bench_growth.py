"""What an input costs a node with 10, 100, 1,000 and 10,000 registered peers; its share beyond 10 must stay small."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from node.machine import inputs as i
from node.machine import views
from node.machine.advancing import turn_time
from node.machine.state import State, initial
from node.machine.step import step
from protocols.identifiers import body_digest
from protocols.manifest import Manifest, StageSpec

SIZES = (10, 100, 1_000, 10_000)
GOAL = 1.5
"""The cost with the most peers, as a multiple of that with the fewest."""
SECONDS = 0.4
HEARD = 8
"""Peers that announce in the stage that is measured."""
ME = f"0x{1:040x}"


def run() -> list[dict[str, Any]]:
    """Return a row for each kind of input: microseconds with most peers, and how many times as much that is."""
    rows = []
    for name, cost in (("an announcement", announcement), ("a look at the window", window), ("a turn timer", turn)):
        costs = {size: _fastest(cost(playing(size))) for size in SIZES}
        growth = costs[SIZES[-1]] / costs[SIZES[0]]
        told = ", ".join(f"{size:,}: {costs[size]:.1f} us" for size in SIZES)
        rows.append({"name": f"{name} ({told})", "value": growth, "unit": "times", "goal": GOAL, "met": growth <= GOAL})
    return rows


def playing(peers: int) -> State:
    """Return a state in round 5 with so many registered peers."""
    names = [f"0x{number:040x}" for number in range(1, peers + 1)]
    manifest = Manifest(name="growth", stages=(StageSpec(name="play", seconds=60),))
    state = initial(ME, manifest)
    return replace(
        state,
        round=5,
        stage=0,
        seed=bytes(32),
        seeds={5: bytes(32)},
        deadline=60,
        peers=dict.fromkeys(names, 0),
        owners={name: name for name in names},
        chain="present",
    )


def announcement(state: State) -> Callable[[], object]:
    """Take the announcements of a few peers, from the same state again and again."""
    told = [
        i.Stamped(
            1.0, i.RolloutsAnnounced(f"0x{number:040x}", 5, 0, body_digest(b"%d" % number), 10, False, False, (), False)
        )
        for number in range(2, 2 + HEARD)
    ]

    def take() -> None:
        at = state
        for one in told:
            at, _ = step(at, one)
            views.eligible(at)

    return take


def window(state: State) -> Callable[[], object]:
    """Look up who may announce, as after every input."""
    return lambda: views.eligible(state)


def turn(state: State) -> Callable[[], object]:
    """Find this node's turn to advance, as several times a stage."""
    return lambda: turn_time(state)


def _fastest(work: Callable[[], object]) -> float:
    """Return the microseconds of the fastest of many calls."""
    work()
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        begun = time.perf_counter()
        for _ in range(20):
            work()
        best = min(best, (time.perf_counter() - begun) / 20 * 1e6)
    return best
