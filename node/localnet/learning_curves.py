"""Learning curves as PNG images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from node.localnet.demo_summary import DemoSummary

Curve = tuple[Sequence[float], Sequence[float]]
"""Rounds and values."""

NO_PICTURE = "no picture was drawn: matplotlib is not installed; pip install 'swarm-node[demo]'"


class NoPictureError(RuntimeError):
    """There is no library to draw with; the text says how to get one."""


def draw(summary: DemoSummary, path: Path) -> None:
    """Write a PNG: held-out accuracy per peer and their mean over rounds, and the reward per peer.

    Raises `NoPictureError`.
    """
    figure, (left, right) = _figure(2)
    for peer in summary.peers:
        left.plot(*accuracy_curve(peer.curve), marker="o", markersize=3, linewidth=1, alpha=0.6, label=peer.name)
        right.plot(*reward_curve(peer.rewards), linewidth=1, alpha=0.8, label=peer.name)
    left.plot(*mean_curve([accuracy_curve(peer.curve) for peer in summary.peers]), color="black", label="mean")
    _dress(left, "Held-out accuracy, sampled at temperature 1", "percent of samples right", 100)
    _dress(right, "Mean reward of a peer's own rollouts", "reward", 1)
    left.legend(fontsize=7, loc="lower right")
    _save(figure, path)


def draw_comparison(with_sharing: DemoSummary, without: DemoSummary, path: Path) -> None:
    """Write a PNG: mean held-out accuracy over rounds of a swarm with sharing and one without.

    Raises `NoPictureError`.
    """
    figure, (axes,) = _figure(1)
    for summary, label, colour in ((with_sharing, "sharing on", "tab:green"), (without, "sharing off", "tab:red")):
        for peer in summary.peers:
            axes.plot(*accuracy_curve(peer.curve), color=colour, linewidth=0.8, alpha=0.35)
        curves = [accuracy_curve(peer.curve) for peer in summary.peers]
        axes.plot(*mean_curve(curves), color=colour, linewidth=2.5, label=label)
    _dress(axes, "The same sparse start, with and without the others' rollouts", "held-out accuracy, percent", 100)
    axes.legend(loc="upper left")
    _save(figure, path)


def accuracy_curve(points: Sequence[Any]) -> Curve:
    """Return rounds and percent of a learning curve (`node.machine.status.CurvePoint`)."""
    return [point.round for point in points], [100 * point.accuracy for point in points]


def reward_curve(points: Sequence[Any]) -> Curve:
    """Return rounds and the mean over the stages of each (`node.machine.status.RewardPoint`)."""
    rounds = sorted({point.round for point in points})
    of_round = [[point.reward for point in points if point.round == number] for number in rounds]
    return rounds, [sum(rewards) / len(rewards) for rewards in of_round]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of curves at every round that any of them has; each contributes its newest value so far.

    Rounds before every curve has a value are left out.
    """
    known = [dict(zip(*curve, strict=True)) for curve in curves if curve[0]]
    start = max((min(values) for values in known), default=0)
    rounds = sorted({number for values in known for number in values if number >= start})
    latest = [[values[max(at for at in values if at <= number)] for values in known] for number in rounds]
    return rounds, [sum(values) / len(values) for values in latest]


def load_pyplot() -> Any:
    """Return matplotlib's `pyplot`, drawing into files only. Raises `NoPictureError`."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise NoPictureError(NO_PICTURE) from error
    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _figure(columns: int) -> tuple[Any, Sequence[Any]]:
    figure, axes = load_pyplot().subplots(1, columns, figsize=(5.6 * columns, 4.0), squeeze=False, layout="constrained")
    return figure, axes[0]


def _dress(axes: Any, title: str, unit: str, top: float) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("round")
    axes.set_ylabel(unit)
    axes.set_ylim(0, top)
    axes.grid(alpha=0.3)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=130)
    load_pyplot().close(figure)
