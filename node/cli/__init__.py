"""The command line `swarm`: one file per command, imported when called; errors are one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NoReturn

import click

from node.exits import Exit, Refusal

COMMANDS = (
    "init", "run", "status", "explain", "leaderboard", "login", "logout", "register", "whoami", "keys", "backup",
    "restore", "eval", "model", "demo", "bootnode", "version",
)  # fmt: skip
"""In the order of the help text. Each is a function of that name in `node.cli.NAME`."""


class Commands(click.Group):
    """Imports commands by name; leaves out those that are not installed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands that are installed."""
        return [name for name in COMMANDS if find_spec(f"node.cli.{name}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; return None for an unknown one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(f"node.cli.{cmd_name}"), cmd_name)
        return command


def _end(code: Exit, text: str) -> NoReturn:
    click.echo(f"swarm: {' '.join(text.split())}", err=True)
    sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def swarm() -> None:
    """Run a node of a learning swarm.

    Start with `swarm demo` (a whole swarm on this machine) or `swarm init` and `swarm run` (join one). Exit codes and
    configuration keys are listed in docs/reference.
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code; an error is one line on stderr."""
    try:
        code: object = swarm.main(args, "swarm", standalone_mode=False)
    except Refusal as refusal:
        _end(refusal.code, str(refusal))
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "swarm"
        _end(Exit.USAGE, f"{error.format_message()} See `{command} --help`.")
    except click.ClickException as error:
        _end(Exit.USAGE, error.format_message())
    except (click.Abort, KeyboardInterrupt):
        _end(Exit.INTERRUPTED, "interrupted")
    sys.exit(code if isinstance(code, int) else Exit.OK)
