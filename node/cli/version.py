"""`swarm version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

SHOWN = ("swarm-node", "libp2p", "torch", "transformers", "trio")


def installed(package: str) -> str:
    """Return a package's version, "-" if it is not installed."""
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "-"


@click.command()
def version() -> None:
    """Print the versions to include in a bug report."""
    click.echo(f"{'python':<13} {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in SHOWN:
        click.echo(f"{package:<13} {installed(package)}")
