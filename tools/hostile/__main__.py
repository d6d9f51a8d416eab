"""`python -m tools.hostile`."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec
from rich.console import Console

from tools.hostile.arms import GOAL, HostileArm, HostileResult, HostileSettings, arms_of, ratio
from tools.hostile.attacks import ATTACKS, USUAL
from tools.hostile.report import table_of
from tools.trials import played, start_of

DEFAULT_OUT = Path("hostile-out")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_OUT, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--honest", type=click.IntRange(min=2), default=7, show_default=True)
@click.option(
    "--hostile", type=click.Choice(list(ATTACKS)), multiple=True, default=USUAL, show_default=True,
    help="A hostile peer of this kind; name as many as are to play.",
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Each computes on one core."
)
def main(out: Path, seeds: int, honest: int, hostile: tuple[str, ...], rounds: int, processes: int) -> None:
    """Play honest peers alone, beside hostile ones, and so without any check; print the table, write hostile.json.

    Ends with 1 where the honest peers beside hostile ones stay below 0.9 of what they reach alone.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=140)
    base = start_of(out, sparse=False)
    terms, arms = HostileSettings(honest=honest, rounds=rounds), arms_of(hostile)
    results = play(base, arms, terms, range(seeds), processes, console)
    content = {"terms": terms, "arms": arms, "results": results}
    (out / "hostile.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
    console.print(table_of(arms, results))
    reached = ratio(results, arms[1], arms[0])
    console.print(
        f"{honest} honest peers beside {', '.join(hostile)} reach {reached:.3f} of what they reach alone; goal {GOAL}: "
        f"{'met' if reached >= GOAL else 'missed'} ({rounds} rounds, {seeds} seeds, {time.monotonic() - began:.0f} s)"
    )
    raise SystemExit(0 if reached >= GOAL else 1)


def play(
    base: Path, arms: tuple[HostileArm, ...], terms: HostileSettings, seeds: range, processes: int, console: Console
) -> list[HostileResult]:
    """Run all arms with all seeds; return the results in the order of arms and seeds."""
    from tools.hostile.swarm import run

    results: list[HostileResult] = []
    for found in played(run, ((base, arm, terms, seed) for seed in seeds for arm in arms), processes):
        results.append(found)
        line = f"{found.arm:<16} seed {found.seed}: {found.accuracy:.3f}, {found.seconds:.0f} s"
        console.print(line, highlight=False)
    order = [arm.name for arm in arms]
    return sorted(results, key=lambda each: (order.index(each.arm), each.seed))


if __name__ == "__main__":
    main()
