"""`swarm model`: the model that this node trains."""

from __future__ import annotations

from pathlib import Path

import click

from node.cli.options import data_dir_option, expanded
from node.exits import Exit, Refusal


@click.group()
def model() -> None:
    """Take the trained model out of a data directory."""


@model.command()
@data_dir_option
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Directory to write.")
@click.option("--force", is_flag=True, help="Replace DIR where it holds a model already.")
def export(data_dir: Path, out: Path, force: bool) -> None:
    """Write the current model as a Hugging Face directory; the node may run meanwhile.

    It is that of the newest intact checkpoint: weights, tokenizer, configuration, as transformers' AutoModelForCausalLM
    and AutoTokenizer load them. Adapters are merged into their base model.
    """
    from node.trainer.checkpoints.export import NoModelError, export_model

    home, target = expanded(data_dir), expanded(out)
    refuse_to_replace(target, force)
    try:
        found = export_model(home / "trainer", target, merged=True)
    except NoModelError as error:
        raise Refusal(Exit.MODEL, str(error)) from error
    except OSError as error:
        raise Refusal(Exit.STORE, f"cannot write {target}: {error.strerror or error}; check path and disk") from error
    click.echo(f"{target}: round {found.counters.round}, {found.counters.updates} updates")


def refuse_to_replace(target: Path, force: bool) -> None:
    """Raise `Refusal` where writing `target` would lose something: anything without `force`, with it no model."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not force:
        raise Refusal(Exit.EXISTS, f"{target} exists and stays as it is; name another directory, or give --force")
    if not (target / "config.json").is_file():
        raise Refusal(Exit.EXISTS, f"{target} holds no model and is not replaced, not by --force either; name another")
