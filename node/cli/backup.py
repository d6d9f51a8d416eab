"""`swarm backup`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.cli.owner import node_key, terminal
from node.exits import Exit, Refusal
from node.files.private import OpenToOthersError, create_private, read_private
from node.identity import NodeKey, rsa
from node.identity import delegation_file as delegation
from node.identity.backup import BackedUpIdentity, seal
from node.identity.key import pem_of
from node.identity.secret import BACKUP_PASSPHRASE, find
from node.vote_protection import SignedHistory, VoteProtection, encode_history

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Passphrase file; default: SWARM_BACKUP_PASSPHRASE, the credential backup-passphrase, or the terminal.",
)


@click.command(short_help="Write key, delegation and vote history to one encrypted file.")
@click.argument("file", type=click.Path(path_type=Path))
@data_dir_option
@config_flags("identity")
@passphrase_option
def backup(file: Path, data_dir: Path, passphrase_file: Path | None, **flags: Any) -> None:
    """Write this node's identity to FILE, encrypted: key, delegation, and everything the key ever signed.

    Stop the node first, or the backup would miss its latest votes. Nothing is overwritten.
    """
    home = expanded(data_dir)
    identity = collect(home, node_key(home, config_from(home, flags).identity))
    sealed = seal(identity, find(BACKUP_PASSPHRASE, passphrase_file, os.environ, terminal(confirm=True)))
    try:
        create_private(file, sealed)
    except FileExistsError as error:
        raise Refusal(Exit.EXISTS, f"{file} exists and was not changed; choose another file") from error
    except OSError as error:
        raise Refusal(Exit.STORE, f"cannot write {file}: {error.strerror}; choose another file") from error
    click.echo(f"{identity.node} written to {file}; later votes are not in it, so a restored node waits a round first")


def collect(home: Path, key: NodeKey) -> BackedUpIdentity:
    """Return a data directory's identity. Raises `Refusal` if a node is using it."""
    with VoteProtection(home / "votes.sqlite") as guard:
        votes = encode_history(SignedHistory(key.address, guard.history()))
    return BackedUpIdentity(
        key.address, time.time(), pem_of(key), _content(home / rsa.FILE), _content(home / delegation.FILE), votes
    )


def _content(path: Path) -> bytes:
    try:
        return read_private(path)
    except FileNotFoundError:
        return b""
    except OpenToOthersError as error:
        raise Refusal(Exit.IDENTITY, str(error)) from error
    except OSError as error:
        raise Refusal(Exit.IDENTITY, f"cannot read {path}: {error.strerror}; check path and owner") from error
