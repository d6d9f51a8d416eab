"""`swarm run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import structlog

from node.cli.options import config_flags, config_from, data_dir_option, expanded, first
from node.config import Config
from node.exits import Exit, Refusal

log = structlog.get_logger()


@click.command(short_help="Run the node until it is told to stop.")
@data_dir_option
@config_flags()
def run(data_dir: Path, **flags: Any) -> int:
    """Run the node until it is told to stop (SIGTERM or Ctrl-C; SIGUSR1 finishes the stage first).

    A flag wins over its environment variable (SWARM_SECTION_KEY), that over swarm.toml, that over the default.
    """
    home = expanded(data_dir)
    config = config_from(home, flags)
    return _run(config, home)


def _run(config: Config, home: Path) -> int:
    from node.app import run_node
    from node.identity import IdentityError

    try:
        return run_node(config, home)
    except Exception as error:  # the end of the process: the operator gets one line or, unforeseen, a log entry
        if refusal := first(error, Refusal):
            raise refusal from error
        if refused := first(error, IdentityError):
            raise Refusal(Exit.IDENTITY, str(refused)) from error
        log.exception("node.failed", reason=str(error))
        return Exit.FAULT
