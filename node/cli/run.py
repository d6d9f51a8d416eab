"""`swarm run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import structlog

from node.cli.options import FLAGS, config_flags, config_from, data_dir_option, expanded, parameter
from node.config import Config
from node.errors import first
from node.exits import Exit, Refusal

log = structlog.get_logger()


@click.command(short_help="Run the node until it is stopped.")
@data_dir_option
@click.option("--gpus", default="", metavar="all|N,N", help="Run one peer per GPU, each in DATA/gpu-N.")
@click.option("--own", is_flag=True, help="Without an owner: the node key owns itself, for good (own_owner).")
@config_flags()
def run(data_dir: Path, gpus: str, own: bool, **flags: Any) -> int:
    """Run the node until it is stopped (SIGTERM or Ctrl-C; SIGUSR1 finishes the stage first).

    It belongs to the account that signed for it (`swarm login`); without one, --own makes it own itself.

    Flags take precedence over environment variables (SWARM_SECTION_KEY), these over swarm.toml and the defaults.
    """
    home = expanded(data_dir)
    flags["settings"] = (*flags["settings"], *(["own_owner=true"] if own else []))
    config = config_from(home, flags)
    return _run_fleet(gpus, home, config, flags) if gpus else _run(config, home)


def _run(config: Config, home: Path) -> int:
    from node.app.node import run_node
    from node.identity import IdentityError

    try:
        return run_node(config, home)
    except Exception as error:  # end of the process: the operator gets one line or, if unexpected, a log entry
        if refusal := first(error, Refusal):
            raise refusal from error
        if refused := first(error, IdentityError):
            raise Refusal(Exit.IDENTITY, str(refused)) from error
        log.exception("node.failed", reason=str(error))
        return Exit.FAULT


def _run_fleet(gpus: str, home: Path, config: Config, flags: dict[str, Any]) -> int:
    import trio

    from node.app.fleet import VISIBLE, Fleet, FleetMember, chosen_gpus, count_gpus, plan_peers, prepare
    from node.logs import configure
    from node.store.directory import DataDirectory

    configure(config.log)
    chosen = chosen_gpus(gpus, count_gpus(), os.environ.get(VISIBLE, ""))
    peers = plan_peers(chosen, home, config, given(flags))

    def command(peer: FleetMember) -> list[str]:
        return [sys.executable, "-m", "node.cli", "run", "--data-dir", str(peer.directory), *peer.flags]

    with DataDirectory(home):
        for peer in peers:
            prepare(peer, home, config)
        return trio.run(Fleet(peers, command).run)


def given(flags: dict[str, Any]) -> list[str]:
    """Return the operator's flags as arguments again, without ports and addresses, which differ for each peer."""
    own = ("http.port", "gossip.listen", "identity")
    made: list[str] = []
    for flag, key, multiple, _ in FLAGS:
        value = flags.get(parameter(key))
        if value and key not in own:
            made += [part for each in (value if multiple else [value]) for part in (flag, str(each))]
    return [*made, *(part for each in flags.get("settings", ()) for part in ("--set", each))]
