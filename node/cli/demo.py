"""`swarm demo`: a whole swarm on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from node.exits import Exit, Refusal
from node.localnet.demo_compare import compare, comparison_lines
from node.localnet.demo_inputs import real_inputs
from node.localnet.demo_plan import DEFAULT_GAME, DemoOptions, DemoPlan, PlanError, demo_plan
from node.localnet.demo_report import print_summary
from node.localnet.demo_run import interruptible, run_swarm, workplace, write_json
from node.localnet.demo_view import view_for
from node.localnet.learning_curves import NoPictureError, draw, draw_comparison
from node.localnet.processes import DemoError
from node.runtime.game_plugins import load_games

DEFAULT_OUT = Path("demo-out")


@click.command(short_help="Run a whole swarm on this machine.")
@click.option("--peers", type=int, default=0, metavar="N", help="Nodes of the swarm: 4, with --model 2.")
@click.option("--rounds", type=int, default=0, metavar="N", help="Rounds to play.")
@click.option("--slow", type=int, default=0, metavar="N", help="Make node N too slow: it must skip.")
@click.option("--seed", type=int, default=0, metavar="N", help="Seed of models and sampling.")
@click.option("--seconds", type=int, default=0, metavar="S", help="Length of a stage; share has one a round.")
@click.option("--game", default=DEFAULT_GAME, metavar="NAME", help="The game, share, debate or a plug-in's: share.")
@click.option("--compare", "comparing", is_flag=True, help="A sparse start with sharing, then without.")
@click.option("--model", default="", metavar="DIR|NAME", help="Train this causal language model.")
@click.option("--data", default="", metavar="FILE", help="Questions: JSONL with question and answer, or a directory.")
@click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_OUT, help="Directory for picture and JSON.")
@click.option("--keep", is_flag=True, help="Keep every node's data and logs in OUT/run.")
@click.option("--warmup-steps", type=int, default=0, hidden=True)
def demo(
    peers: int, rounds: int, slow: int, seed: int, seconds: int, game: str, comparing: bool, model: str, data: str,
    out: Path, keep: bool, warmup_steps: int,
) -> None:  # fmt: skip
    """Run a whole swarm on this machine: chain, contract, bootnode, nodes; watch it learn."""
    options = DemoOptions(
        peers=peers, rounds=rounds, slow=slow, seed=seed, seconds=seconds, game=game, model=model, data=data,
        warmup_steps=warmup_steps, sparse=comparing,
    )  # fmt: skip
    load_games()
    with _told():
        run_demo(options, out, keep=keep)


def run_demo(options: DemoOptions, out: Path, *, keep: bool = False) -> None:
    """Run the demo of these options, print the results, write picture and JSON to `out`.

    Raises `PlanError`, `DemoError`, KeyboardInterrupt; no process remains.
    """
    template, data = real_inputs(options)
    plan = demo_plan(options, template, data)
    out.mkdir(parents=True, exist_ok=True)
    with interruptible(), workplace(out, keep) as home:
        if options.sparse:
            _comparison(options, out, home)
        else:
            _single(plan, out, home)


def _single(plan: DemoPlan, out: Path, home: Path) -> None:
    with view_for(sys.stdout) as view:
        summary = run_swarm(plan, home, view)
    write_json(summary, out / "demo.json")
    picture = out / "curves.png"
    print_summary(summary)
    draw_picture(lambda: draw(summary, picture), picture)
    click.echo(f"written: {out / 'demo.json'}")


def _comparison(options: DemoOptions, out: Path, home: Path) -> None:
    with view_for(sys.stdout) as view:
        found = compare(options, home, view)
    write_json(found, out / "compare.json")
    picture = out / "compare.png"
    for line in comparison_lines(found):
        click.echo(line)
    draw_picture(lambda: draw_comparison(found.sharing, found.alone, picture), picture)
    click.echo(f"written: {out / 'compare.json'}")


def draw_picture(draw_it: Callable[[], None], picture: Path) -> None:
    """Draw the picture, or say why there is none: the demo's figures do not depend on it."""
    try:
        draw_it()
    except NoPictureError as error:
        click.echo(str(error))
    else:
        click.echo(f"written: {picture}")


@contextmanager
def _told() -> Iterator[None]:
    """Turn errors that end a demo into one line and an exit code."""
    try:
        yield
    except PlanError as error:
        raise Refusal(Exit.USAGE, str(error)) from error
    except DemoError as error:
        raise Refusal(Exit.FAULT, str(error)) from error
