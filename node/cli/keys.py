"""`swarm keys`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from node.cli.backup import backup
from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.cli.owner import node_key, peer_id_of, terminal
from node.cli.restore import restore
from node.exits import Exit, Refusal
from node.files.private import OpenToOthersError, create_private, read_private
from node.identity import IdentityError, NodeKey, name_of
from node.identity.key import create, new_key, pem_of, secret_of_pem
from node.identity.keystore import decrypt, encrypt, is_keystore
from node.identity.rsa import FILE as RSA_FILE
from node.identity.rsa import RsaIdentity
from node.identity.secret import KEY_PASSPHRASE, find
from node.store.directory import VOTES, DataDirectory
from node.store.restore_mark import mark
from node.vote_protection import SignedHistory, VoteProtection, decode_history, encode_history, is_lost

KEY_LIMIT = 64 << 10

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Passphrase file; default: SWARM_KEY_PASSPHRASE, the credential key-passphrase, or the terminal.",
)


@click.group(short_help="Create, show, move and back up the node key.")
def keys() -> None:
    """Create, show, move and back up the node key. Existing files are never overwritten."""


@keys.command()
@data_dir_option
@config_flags("identity")
def new(data_dir: Path, **flags: Any) -> None:
    """Create a node key."""
    home = expanded(data_dir)
    path = home / config_from(home, flags).identity
    with DataDirectory(home):
        _create(path, new_key())
    _show(home, node_key(home, str(path)), path)


@keys.command()
@data_dir_option
@config_flags("identity")
def show(data_dir: Path, **flags: Any) -> None:
    """Show the node key's public data: name, peer id, address, public key."""
    home = expanded(data_dir)
    path = home / config_from(home, flags).identity
    _show(home, node_key(home, str(path)), path)


@keys.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@data_dir_option
@config_flags("identity")
@passphrase_option
def import_(file: Path, data_dir: Path, passphrase_file: Path | None, **flags: Any) -> None:
    """Import a key from FILE: PEM, an encrypted v3 keystore, or RL Swarm's binary swarm.pem.

    RL Swarm's key is RSA. It keeps its peer id and name, and a node key is created beside it that signs for it.
    """
    home = expanded(data_dir)
    path = home / config_from(home, flags).identity
    content = _read(file)
    with DataDirectory(home):
        if content.startswith(b"\x08"):
            _import_rsa(home, path, file, content)
        elif is_keystore(content):
            _create(path, _from_keystore(file, content, passphrase_file))
        else:
            _create(path, NodeKey(secret_of_pem(file, content)))
    _show(home, node_key(home, str(path)), path)


@keys.command()
@click.argument("file", type=click.Path(path_type=Path))
@data_dir_option
@config_flags("identity")
@passphrase_option
@click.option("--pem", is_flag=True, help="Not encrypted, as PEM.")
def export(file: Path, data_dir: Path, passphrase_file: Path | None, pem: bool, **flags: Any) -> None:
    """Write the node key to FILE as an encrypted v3 keystore. For backups use `swarm backup`: it includes the votes."""
    home = expanded(data_dir)
    key = node_key(home, config_from(home, flags).identity)
    content = pem_of(key) if pem else encrypt(key, find(KEY_PASSPHRASE, passphrase_file, os.environ, terminal(True)))
    _write(file, content)
    click.echo(f"{key.address} written to {file}; never run two nodes with one key")


@keys.command(name="export-votes")
@click.argument("file", type=click.Path(path_type=Path))
@data_dir_option
@config_flags("identity")
def export_votes(file: Path, data_dir: Path, **flags: Any) -> None:
    """Write everything the node key ever signed to FILE (docs/vote-protection.md)."""
    home = expanded(data_dir)
    key = node_key(home, config_from(home, flags).identity)
    with VoteProtection(home / VOTES) as guard:
        history = SignedHistory(key.address, guard.history())
    _write(file, encode_history(history))
    click.echo(f"{len(history.signed)} records of {key.address} written to {file}")


@keys.command(name="import-votes")
@click.argument("file", type=click.Path(path_type=Path))
@data_dir_option
@config_flags("identity")
def import_votes(file: Path, data_dir: Path, **flags: Any) -> None:
    """Add what the node key signed on another machine. Local records are never deleted or replaced."""
    home = expanded(data_dir)
    key = node_key(home, config_from(home, flags).identity)
    try:
        history = decode_history(file.read_bytes())
    except OSError as error:
        raise Refusal(Exit.BACKUP, f"cannot read {file}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise Refusal(Exit.BACKUP, f"{file} is not a vote history ({error}); export it again") from error
    if history.node != key.address:
        raise Refusal(Exit.BACKUP, f"{file} is the history of {history.node}, this node is {key.address}")
    click.echo(merge(home, history))


def merge(home: Path, history: SignedHistory) -> str:
    """Add a history to the data directory's; return the text for the operator. Raises `Refusal` if it is in use.

    Where the directory has lost its own history, the imported one may miss the latest votes: the directory is marked.
    """
    if is_lost(home / VOTES):
        mark(home, "its vote protection was lost; a vote history was imported")
    with VoteProtection(home / VOTES, restoring=True) as guard:
        added, against = guard.merge(history.signed)
    result = f"{len(added)} of {len(history.signed)} records were new here"
    if not against:
        return result
    rounds = ", ".join(str(number) for number in sorted({each.round for each in against})[:5])
    return f"{result}; {len(against)} contradict what this machine signed (round {rounds}): two nodes had this key"


keys.add_command(backup)
keys.add_command(restore)


def _import_rsa(home: Path, path: Path, file: Path, content: bytes) -> None:
    try:
        identity = RsaIdentity(content)
    except ValueError as error:
        raise IdentityError(f"{file}: not a key of RL Swarm ({error}); give its swarm.pem") from error
    _create(path, new_key())
    try:
        create_private(home / RSA_FILE, identity.stored)
    except FileExistsError as error:
        path.unlink()
        raise Refusal(
            Exit.EXISTS, f"{home / RSA_FILE} exists and was not changed; choose another --data-dir"
        ) from error


def _from_keystore(file: Path, content: bytes, passphrase_file: Path | None) -> NodeKey:
    passphrase = find(KEY_PASSPHRASE, passphrase_file, os.environ, terminal())
    try:
        return decrypt(content, passphrase)
    except ValueError as error:
        raise Refusal(Exit.SECRET, f"{file}: {error}") from None


def _read(file: Path) -> bytes:
    try:
        return read_private(file, KEY_LIMIT)
    except OpenToOthersError as error:
        raise IdentityError(str(error)) from error
    except OSError as error:
        raise IdentityError(f"cannot read {file}: {error.strerror}; check the path of the key") from error


def _create(path: Path, key: NodeKey) -> None:
    try:
        create(path, key)
    except FileExistsError as error:
        raise Refusal(Exit.EXISTS, f"{path} exists and was not changed; choose another --data-dir") from error


def _write(file: Path, content: bytes) -> None:
    try:
        create_private(file, content)
    except FileExistsError as error:
        raise Refusal(Exit.EXISTS, f"{file} exists and was not changed; choose another file") from error
    except OSError as error:
        raise Refusal(Exit.STORE, f"cannot write {file}: {error.strerror}; choose another file") from error


def _show(home: Path, key: NodeKey, path: Path) -> None:
    peer_id = peer_id_of(home, key)
    rows = (
        ("file", str(path)),
        ("name", name_of(peer_id)),
        ("peer id", peer_id),
        ("address", key.address),
        ("public key", key.public_key.hex()),
    )
    for title, value in rows:
        click.echo(f"{title:<10} {value}")
