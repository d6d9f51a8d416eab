"""The table: both sides of every case, the ratios, and whether they are what was meant."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rich.table import Table

from tools.bench_trl.cases import BenchCase
from tools.bench_trl.generation import Speeds
from tools.bench_trl.match import Match, Side

GENERATION_TIMES = 2.5
ACCURACY_POINTS = 3.0
MEGABYTE = 1 << 20


def table_of(played: Sequence[tuple[BenchCase, Match]]) -> Table:
    """Return a row for each side of each match."""
    table = Table(
        "case", "seed", "side", "s/update", "generating", "training", "CPU s", "peak MB", "reward", "held out", box=None
    )
    for case, match in played:
        for name, side in (("trl", match.trl), ("ours", match.ours)):
            table.add_row(case.title, str(match.seed), name, *cells(side, match.before))
    return table


def cells(side: Side, before: float | None) -> list[str]:
    """Return one side's figures."""
    held_out = "" if before is None or side.accuracy is None else f"{before:.3f} -> {side.accuracy:.3f}"
    return [
        f"{side.seconds:.3f}",
        f"{side.generating:.3f}",
        f"{side.training:.3f}",
        f"{side.cpu:.3f}",
        f"{side.peak / MEGABYTE:,.0f}",
        f"{fmean(side.rewards[:5]):.3f} -> {fmean(side.rewards[-5:]):.3f}",
        held_out,
    ]


def verdicts(case: BenchCase, matches: Sequence[Match]) -> list[tuple[str, bool]]:
    """Return what was meant of a case, with the figure reached, and whether it holds."""
    times = fmean(match.times for match in matches)
    cpu = fmean(match.cpu_times for match in matches)
    ours = max(match.ours.peak for match in matches)
    theirs = max(match.trl.peak for match in matches)
    found = [
        (
            f"{case.title}: {times:.2f} times faster per update (meant: {case.times:g}), {cpu:.2f} by CPU time",
            times >= case.times,
        ),
        (f"{case.title}: peak memory {ours / theirs:.2f} of TRL's (meant: at most 1)", ours <= theirs),
    ]
    if case.shape is None:
        gap = 100 * (fmean(m.ours.accuracy or 0 for m in matches) - fmean(m.trl.accuracy or 0 for m in matches))
        text = f"{case.title}: held-out accuracy {gap:+.1f} points of TRL's (meant: within {ACCURACY_POINTS:g})"
        found.append((text, gap >= -ACCURACY_POINTS))
    return found


def generation_verdict(speeds: Speeds) -> tuple[str, bool]:
    """Return the same of generation."""
    text = (
        f"generation: {speeds.ours:,.0f} tokens/s, transformers generate {speeds.generate:,.0f}: "
        f"{speeds.times:.2f} times faster (meant: {GENERATION_TIMES:g}); "
        f"{speeds.share:.1%} of {speeds.peak_gflops:,.0f} GFLOP/s"
    )
    return text, speeds.times >= GENERATION_TIMES
