"""Does sharing help? Runs the same sparse start twice: with other peers' rollouts, and with twice as many own ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import replace

from node.localnet.demo_plan import DemoOptions, demo_plan
from node.localnet.demo_run import run_swarm
from node.localnet.demo_summary import DemoSummary, percent
from node.localnet.demo_view import View


class SharingComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both swarms. `difference` is in points of final held-out accuracy, mean over the peers."""

    seed: int
    difference: float
    sharing: DemoSummary
    alone: DemoSummary


def compare(options: DemoOptions, home: Path, view: View) -> SharingComparison:
    """Run both swarms one after the other, from the same model, with the same peers and seeds.

    Raises `node.localnet.processes.DemoError`, KeyboardInterrupt.
    """
    builtin = home / "builtin-model"
    shared = replace(options, sparse=True, sharing=True)
    view.step("sharing on")
    sharing = run_swarm(demo_plan(shared), home / "sharing-on", view, builtin=builtin)
    view.step("sharing off")
    plan = demo_plan(replace(shared, sharing=False))
    alone = run_swarm(plan, home / "sharing-off", view, builtin=builtin, keys=home / "sharing-on")
    return compared(sharing, alone)


def compared(sharing: DemoSummary, alone: DemoSummary) -> SharingComparison:
    """Return the comparison of two summaries."""
    return SharingComparison(
        seed=sharing.seed, difference=100 * (sharing.after - alone.after), sharing=sharing, alone=alone
    )  # fmt: skip


def comparison_lines(found: SharingComparison) -> list[str]:
    """Return the result as lines of text."""
    on, off = found.sharing, found.alone
    return [
        f"sharing on:  {percent(on.before)} -> {percent(on.after)}, {on.own} own and {on.external} external groups",
        f"sharing off: {percent(off.before)} -> {percent(off.after)}, {off.own} own groups",
        f"sharing gains {found.difference:+.1f} points of held-out accuracy (seed {found.seed}, mean of "
        f"{len(on.peers)} peers)",
    ]
