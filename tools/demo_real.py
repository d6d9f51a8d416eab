"""`make demo-real`: the demo with a real pretrained model on real questions, without a model hub."""

from __future__ import annotations

import sys

import click

from node.cli import main as swarm
from tools.fetch_model import default_directory, fetch_model

NEEDED = (
    "demo-real needs questions: make demo-real DATA=PATH, where PATH is a JSONL file with question and answer on each "
    "line, or a directory with train.jsonl and test.jsonl (GSM8K and MAWPS in their published form both fit)"
)


def main() -> None:
    """Fetch the model if it is missing, then run the demo with the given options."""
    arguments = sys.argv[1:]
    if not any(word == "--data" or word.startswith("--data=") for word in arguments):
        raise SystemExit(NEEDED)
    if not any(word == "--model" or word.startswith("--model=") for word in arguments):
        arguments += ["--model", _model()]
    swarm(["demo", *arguments])


def _model() -> str:
    place = default_directory()
    if not place.exists():
        click.echo(f"fetching SmolLM2-135M-Instruct once, 93 MB, into {place}", err=True)
    try:
        return str(fetch_model(place))
    except click.ClickException as error:
        raise SystemExit(error.format_message()) from error


if __name__ == "__main__":
    main()
