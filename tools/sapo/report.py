"""The table and the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from node.localnet.learning_curves import load_pyplot
from tools.sapo.arms import SapoArm, SapoResult
from tools.trials import spread

COLOURS = ("tab:red", "tab:gray", "tab:blue", "tab:green", "tab:orange")


def table_of(arms: Sequence[SapoArm], results: Sequence[SapoResult]) -> Table:
    """Return a row for each arm; mean and standard deviation over seeds."""
    table = Table(
        "own/external", "cumulative reward", "of 8/0", "held out", "own used", "external used", "tokens", "s", box=None
    )  # fmt: skip
    first = fmean(each.cumulative for each in results if each.arm == arms[0].name)
    for arm in arms:
        runs = [each for each in results if each.arm == arm.name]
        table.add_row(
            arm.name,
            spread([each.cumulative for each in runs], 1),
            f"{fmean(each.cumulative for each in runs) / first:.2f}" if first else "",
            spread([each.accuracies[-1][1] for each in runs], 3),
            f"{fmean(each.own_used for each in runs):,.0f}",
            f"{fmean(each.external_used for each in runs):,.0f}",
            f"{fmean(each.tokens for each in runs):,.0f}",
            f"{fmean(each.seconds for each in runs):.0f}",
        )
    return table


def draw(arms: Sequence[SapoArm], results: Sequence[SapoResult], path: Path) -> None:
    """Write a PNG: cumulative reward and held-out accuracy over rounds; lines are means, bands all seeds.

    Raises `NoPictureError`.
    """
    pyplot = load_pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for arm, colour in zip(arms, COLOURS, strict=True):
        runs = [each for each in results if each.arm == arm.name]
        rounds = range(1, len(runs[0].rewards) + 1)
        _band(left, rounds, [list(accumulate(each.rewards)) for each in runs], arm.name, colour)
        at = [number for number, _ in runs[0].accuracies]
        _band(right, at, [[100 * value for _, value in each.accuracies] for each in runs], arm.name, colour)
    _dress(left, "Reward of own rollouts, summed over rounds and peers")
    _dress(right, "Held-out accuracy, sampled, mean of peers, percent")
    left.legend(title="own/external", fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _band(axes: Any, x: Sequence[int], curves: Sequence[Sequence[float]], label: str, colour: str) -> None:
    def over(of: Callable[[Sequence[float]], float]) -> list[float]:
        return [of(values) for values in zip(*curves, strict=True)]

    axes.plot(x, over(fmean), color=colour, linewidth=2, label=label)
    axes.fill_between(x, over(min), over(max), color=colour, alpha=0.15, linewidth=0)


def _dress(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("round")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
