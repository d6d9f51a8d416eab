"""Options that several commands share, and their conversion to a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from node.config import DATA_DIR_VARIABLE, Config, load_config
from node.exits import Exit, Refusal

Decorated = Callable[..., Any]

DEFAULT_DATA_DIR = "~/.swarm"

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    envvar=DATA_DIR_VARIABLE,
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help=f"The node's data directory [env: {DATA_DIR_VARIABLE}].",
)

FLAGS: tuple[tuple[str, str, bool, str], ...] = (
    ("--manifest", "manifest", False, "The swarm's manifest."),
    ("--identity", "identity", False, "The node key [env: IDENTITY_PATH]."),
    ("--chain-url", "chain.urls", True, "RPC endpoint; repeat it to try several in order."),
    ("--contract", "chain.contract", False, "The coordinator's address."),
    ("--listen", "gossip.listen", True, "Multiaddr to listen on."),
    ("--announce", "gossip.announce", True, "Multiaddr under which others reach this node."),
    ("--bootnode", "gossip.bootnodes", True, "Multiaddr of a bootnode, besides the contract's."),
    ("--model", "trainer.model", False, "Directory or name of the model; default: the manifest's."),
    ("--data", "trainer.data", False, "This node's copy of the questions."),
    ("--device", "trainer.device", False, "auto, cpu, cuda, mps."),
    ("--http-host", "http.host", False, "Address of the status server."),
    ("--http-port", "http.port", False, "Port of the status server; 0 chooses a free one."),
    ("--log-format", "log.format", False, "auto, json, text."),
    ("--log-level", "log.level", False, "debug, info, warning, error."),
)
"""Flag, configuration key, whether it may be repeated, help."""


def parameter(key: str) -> str:
    """Return the name of the Python parameter of a key."""
    return key.replace(".", "__")


def config_flags(*keys: str) -> Callable[[Decorated], Decorated]:
    """Return the decorator that adds the flags of these keys (default: all) and `--set`."""

    def decorate(function: Decorated) -> Decorated:
        function = click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other key, as in swarm.toml."
        )(function)
        for flag, key, multiple, text in reversed(FLAGS):
            if not keys or key in keys:
                variable = "IDENTITY_PATH" if key == "identity" else None
                function = click.option(flag, parameter(key), multiple=multiple, envvar=variable, help=text)(function)
        return function

    return decorate


def config_from(data_dir: Path, flags: dict[str, Any]) -> Config:
    """Return the configuration of a directory with these flags. Raises `Refusal`."""
    overrides = {key: flags.get(parameter(key)) or None for _, key, _, _ in FLAGS}
    for setting in flags.get("settings", ()):
        key, sign, value = setting.partition("=")
        if not sign:
            raise Refusal(Exit.USAGE, f"--set {setting}: write it as KEY=VALUE, such as --set http.port=0")
        overrides[key.strip()] = value.strip()
    return load_config(expanded(data_dir), overrides, os.environ)


def expanded(data_dir: Path) -> Path:
    """Return the data directory as an absolute path."""
    return data_dir.expanduser().absolute()
