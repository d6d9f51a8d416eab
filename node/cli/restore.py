"""`swarm restore`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from node.cli.backup import passphrase_option
from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.cli.owner import terminal
from node.exits import Exit, Refusal
from node.files.private import create_private
from node.identity import delegation_file as delegation
from node.identity import rsa
from node.identity.backup import BackedUpIdentity, unseal
from node.identity.secret import BACKUP_PASSPHRASE, find
from node.store.directory import VOTES, DataDirectory
from node.store.restore_mark import mark
from node.vote_protection import VoteProtection, decode_history


@click.command(short_help="Restore a backup's identity into a data directory.")
@click.argument("file", type=click.Path(path_type=Path))
@data_dir_option
@config_flags("identity")
@passphrase_option
@click.option("--merge-votes", is_flag=True, help="Add the backup's votes to the existing ones.")
def restore(file: Path, data_dir: Path, passphrase_file: Path | None, merge_votes: bool, **flags: Any) -> None:
    """Restore the identity in FILE into the data directory. Nothing is overwritten.

    Doppelganger protection: the node then waits a whole round before it acts, because another machine may be
    running with the same key.
    """
    home = expanded(data_dir)
    key_file = home / config_from(home, flags).identity
    try:
        sealed = file.read_bytes()
    except OSError as error:
        raise Refusal(Exit.BACKUP, f"cannot read {file}: {error.strerror}; check the path of the backup") from error
    identity = unseal(sealed, find(BACKUP_PASSPHRASE, passphrase_file, os.environ, terminal()))
    with DataDirectory(home):
        click.echo(put(home, key_file, identity, merge_votes))


def put(home: Path, key_file: Path, identity: BackedUpIdentity, merge_votes: bool) -> str:
    """Write an identity's files; return the text for the operator.

    The vote history is written first and the key last, so that an interruption never leaves a key without its history.
    Raises `Refusal` before anything is written if a file already exists.
    """
    wanted = {
        home / rsa.FILE: identity.rsa,
        home / delegation.FILE: identity.delegation,
        key_file: identity.key,
    }
    for path, content in wanted.items():
        if content and path.exists():
            raise Refusal(Exit.EXISTS, f"{path} exists and was not changed; restore into another --data-dir")
    added, total = _votes(home / VOTES, identity, merge_votes)
    mark(home, "restored from a backup")
    for path, content in wanted.items():
        if content:
            _create(path, content)
    return (
        f"{identity.node} is restored with {added} of {total} records of its votes; once started it waits a whole "
        "round before it acts (doppelganger protection). Make sure that no other machine runs it"
    )


def _votes(path: Path, identity: BackedUpIdentity, merge_votes: bool) -> tuple[int, int]:
    """Import the backup's vote history; return how many records were added, of how many."""
    try:
        history = decode_history(identity.votes)
    except ValueError as error:
        raise Refusal(Exit.BACKUP, f"the backup's vote history can't be read ({error}); use another copy") from error
    if history.node != identity.node:
        raise Refusal(Exit.BACKUP, f"the backup of {identity.node} has the votes of {history.node}; use another copy")
    known = path.exists()
    with VoteProtection(path, restoring=True) as guard:
        here = len(guard.history()) if known else 0
        if here and not merge_votes:
            raise Refusal(
                Exit.EXISTS,
                f"{path} already has {here} records of signed votes; give --merge-votes to keep them and add these",
            )
        added, against = guard.merge(history.signed)
    if against:
        click.echo(f"{len(against)} records contradict what was signed here; the local ones stay", err=True)
    return len(added), len(history.signed)


def _create(path: Path, content: bytes) -> None:
    try:
        create_private(path, content)
    except FileExistsError as error:
        raise Refusal(Exit.EXISTS, f"{path} exists and was not changed; restore into another --data-dir") from error
    except OSError as error:
        raise Refusal(Exit.STORE, f"cannot write {path}: {error.strerror}; check path and disk") from error
