"""`python -m tools.sapo`."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import click
import msgspec
from rich.console import Console

from tools.sapo.arms import Arm, Result, Terms, arms_of
from tools.sapo.report import draw, table_of

DEFAULT_OUT = Path("sapo-out")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_OUT, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--peers", type=click.IntRange(min=2), default=8, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=60, show_default=True)
@click.option(
    "--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Each computes on one core."
)
def main(out: Path, seeds: int, peers: int, rounds: int, processes: int) -> None:
    """Run every arm with every seed; print the table, write sapo.json and sapo.png."""
    began = time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # read once, when the children import torch
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    base = sparse_base(out)
    terms = Terms(peers=peers, rounds=rounds)
    arms = arms_of(peers)
    results = play(base, arms, terms, range(seeds), processes, console)
    content = {"terms": terms, "arms": arms, "results": results}
    (out / "sapo.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
    draw(arms, results, out / "sapo.png")
    console.print(table_of(arms, results))
    console.print(
        f"{peers} peers, {rounds} rounds, {seeds} seeds in {time.monotonic() - began:.0f} s; "
        f"written: {out / 'sapo.json'}, {out / 'sapo.png'}"
    )


def sparse_base(out: Path) -> Path:
    """Return the start that all runs share, made in `out` unless it is there (about a minute on one core)."""
    from node.trainer.tiny_model import read_shape
    from node.trainer.warmstart import build_base_model

    target = out / "base"
    if read_shape(target) is None:
        build_base_model(target, 0, sparse=True)
    return target


def play(
    base: Path, arms: tuple[Arm, ...], terms: Terms, seeds: range, processes: int, console: Console
) -> list[Result]:
    """Run all arms with all seeds, the longest first; return the results in the order of arms and seeds."""
    from tools.sapo.swarm import run

    jobs = sorted(((arm, seed) for arm in arms for seed in seeds), key=lambda job: -job[0].generated)
    results: list[Result] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, base, arm, terms, seed) for arm, seed in jobs]):
            found = done.result()
            results.append(found)
            console.print(
                f"{found.arm:<13} seed {found.seed}: {found.cumulative:6.1f}, held out {found.accuracies[-1][1]:.3f}, "
                f"{found.seconds:.0f} s",
                highlight=False,
            )
    order = [arm.name for arm in arms]
    return sorted(results, key=lambda each: (order.index(each.arm), each.seed))


if __name__ == "__main__":
    main()
