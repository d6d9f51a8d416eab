"""`python -m tools.sapo`."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec
from rich.console import Console

from node.localnet.learning_curves import NoPictureError
from tools.sapo.arms import SapoArm, SapoResult, SapoSettings, arms_of
from tools.sapo.report import draw, table_of
from tools.trials import played, start_of

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
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    base = start_of(out, sparse=True)
    terms = SapoSettings(peers=peers, rounds=rounds)
    arms = arms_of(peers)
    results = play(base, arms, terms, range(seeds), processes, console)
    content = {"terms": terms, "arms": arms, "results": results}
    (out / "sapo.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
    console.print(table_of(arms, results))
    console.print(
        f"{peers} peers, {rounds} rounds, {seeds} seeds in {time.monotonic() - began:.0f} s; "
        f"written: {out / 'sapo.json'}"
    )
    try:
        draw(arms, results, out / "sapo.png")
    except NoPictureError as error:
        console.print(str(error), markup=False)
    else:
        console.print(f"written: {out / 'sapo.png'}")


def play(
    base: Path, arms: tuple[SapoArm, ...], terms: SapoSettings, seeds: range, processes: int, console: Console
) -> list[SapoResult]:
    """Run all arms with all seeds, the longest first; return the results in the order of arms and seeds."""
    from tools.sapo.swarm import run

    jobs = sorted(((base, arm, terms, seed) for arm in arms for seed in seeds), key=lambda job: -job[1].num_prompts)
    results: list[SapoResult] = []
    for found in played(run, jobs, processes):
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
