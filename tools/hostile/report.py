"""The table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from rich.table import Table

from tools.hostile.arms import HostileArm, HostileResult, ratio
from tools.trials import spread


def table_of(arms: Sequence[HostileArm], results: Sequence[HostileResult]) -> Table:
    """Return a row for each arm; accuracies are means of the honest peers, with the deviation over seeds."""
    table = Table(
        "swarm", "start", "end", "of alone", "hostile bodies used", "refused", "honest refused",
        "votes for hostile", "skipped", "s",
        box=None,
    )  # fmt: skip
    for arm in arms:
        runs = [each for each in results if each.arm == arm.name]
        table.add_row(
            arm.name,
            f"{fmean(fmean(each.before) for each in runs):.3f}",
            spread([each.accuracy for each in runs], 3),
            f"{ratio(results, arm, arms[0]):.3f}",
            share(sum(each.used for each in runs), sum(each.offered for each in runs)),
            reasons([each.refused for each in runs]),
            reasons([each.wronged for each in runs]),
            f"{reasons([each.misled for each in runs])} of {sum(each.votes for each in runs)}",
            str(sum(each.skipped for each in runs)),
            f"{fmean(each.seconds for each in runs):.0f}",
        )
    return table


def share(part: int, whole: int) -> str:
    """Return a part of a whole."""
    return f"{part} of {whole}"


def reasons(counts: Sequence[dict[str, int]]) -> str:
    """Return how many bodies were refused in all runs, by reason."""
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)
    return ", ".join(f"{reason} {count}" for reason, count in found.most_common()) or "0"
