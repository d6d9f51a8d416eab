"""`swarm model`: the model that this node trains."""

from __future__ import annotations

from pathlib import Path

import click

from node.cli.options import data_dir_option, expanded
from node.exits import Exit, Refusal


@click.group()
def model() -> None:
    """Export the trained model from a data directory."""


@model.command()
@data_dir_option
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Directory to write.")
@click.option("--force", is_flag=True, help="Replace DIR if it is a model.")
def export(data_dir: Path, out: Path, force: bool) -> None:
    """Write the current model as a Hugging Face directory; the node may run meanwhile.

    It comes from the newest intact checkpoint: weights, tokenizer, configuration, as transformers'
    AutoModelForCausalLM and AutoTokenizer load them. Adapters are merged into their base model.
    """
    from node.trainer.checkpoints.export import NoModelError, export_model

    home, target = expanded(data_dir), expanded(out)
    refuse_to_replace(target, force)
    try:
        found = export_model(home / "trainer", target, merged=True)
    except NoModelError as error:
        raise Refusal(Exit.MODEL, str(error)) from error
    except OSError as error:
        raise Refusal(
            Exit.STORE, f"cannot write {target}: {error.strerror or error}; check path and disk space"
        ) from error
    click.echo(f"{target}: round {found.counters.round}, {found.counters.updates} updates")


def refuse_to_replace(target: Path, force: bool) -> None:
    """Raise `Refusal` if `target` exists without `force`, or is not a model even with it."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not force:
        raise Refusal(Exit.EXISTS, f"{target} exists and was not changed; choose another directory, or give --force")
    if not (target / "config.json").is_file():
        raise Refusal(
            Exit.EXISTS, f"{target} is not a model and is not replaced even with --force; choose another directory"
        )
