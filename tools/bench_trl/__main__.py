"""`python -m tools.bench_trl`."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec
from rich.console import Console

from tools.bench_trl.cases import CASES, BenchCase, tiny
from tools.bench_trl.environment import python_with_trl

GENERATION = "generate"


def cache_directory() -> Path:
    """Return where environment and models are kept between runs: below $XDG_CACHE_HOME, else ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "swarm-node" / "bench-trl"


@click.command()
@click.option("--venv", type=click.Path(path_type=Path), help="Environment with TRL; made where it is missing.")
@click.option("--case", "names", multiple=True, type=click.Choice([*CASES, GENERATION]), help="All by default.")
@click.option("--seed", "seeds", multiple=True, type=int, help="Seeds, instead of the case's own.")
@click.option("--updates", type=int, help="Updates, instead of the case's own.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Weights of both sides, with random models.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--tiny", "small", is_flag=True, help="Small shapes and few updates: does it run?")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write every figure to a file.")
def main(
    venv: Path | None, names: tuple[str, ...], seeds: tuple[int, ...], updates: int | None, dtype: str | None,
    threads: int, small: bool, path: Path | None,
) -> None:  # fmt: skip
    """Compare our GRPO step with TRL's, and our decoder with transformers'; end with 1 where a goal is missed."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read once, when torch is imported below
    import torch

    from tools.bench_trl.generation import measure
    from tools.bench_trl.match import play
    from tools.bench_trl.models import make_model
    from tools.bench_trl.report import generation_verdict, table_of, verdicts

    torch.set_num_threads(threads)
    place = cache_directory()
    console = Console(width=120)
    found: list[tuple[str, bool]] = []
    figures: dict[str, object] = {}
    played = []
    for case in chosen(names, seeds, updates, dtype, small=small):
        python = python_with_trl(venv or place / "venv")
        matches = [play(case, seed, threads, python, place) for seed in case.seeds]
        played += [(case, match) for match in matches]
        found += verdicts(case, matches)
        figures[case.name] = matches
    if played:
        console.print(table_of(played))
    if not names or GENERATION in names:
        speeds = measure(make_model(CASES["builtin"], place), threads, rounds=1 if small else 7)
        found.append(generation_verdict(speeds))
        figures[GENERATION] = speeds
    for text, holds in found:
        console.print(f"{'met   ' if holds else 'missed'} {text}", highlight=False, soft_wrap=True)
    if path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))
    raise SystemExit(0 if small else int(not all(holds for _, holds in found)))


def chosen(
    names: tuple[str, ...], seeds: tuple[int, ...], updates: int | None, dtype: str | None, *, small: bool
) -> list[BenchCase]:
    """Return the cases as the options change them."""
    cases = [CASES[name] for name in (names or tuple(CASES)) if name in CASES]
    cases = [tiny(case) for case in cases] if small else cases
    changes = {key: value for key, value in (("seeds", seeds), ("updates", updates)) if value}
    typed = {"dtype": dtype} if dtype else {}
    return [msgspec.structs.replace(case, **changes, **(typed if case.shape else {})) for case in cases]


if __name__ == "__main__":
    main()
