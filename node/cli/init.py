"""`swarm init`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click
import msgspec

from node.cli.options import data_dir_option, expanded
from node.cli.presets import Scalar, Settings, presets, settings_of
from node.config import FILE, ChainSettings, load_config
from node.exits import Exit, Refusal
from node.files.private import create_private
from node.runtime.game_plugins import load_games
from protocols.manifest_rules import parse_manifest

EXAMPLES = Path(__file__).parents[2] / "configs" / "swarms"
"""Included manifests, both in a checkout and in an installation."""

ADDRESS = re.compile("0x[0-9a-fA-F]{40}")
URL = re.compile(r"(ws|wss|http|https)://[^\s,]+")


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's choices. `manifest` is the file's content."""

    manifest: bytes
    urls: tuple[str, ...]
    contract: str
    trainer: Settings
    bootnodes: tuple[str, ...]


@click.command(short_help="Prepare a data directory.")
@data_dir_option
@click.option(
    "--swarm", "swarm", metavar="FILE|NAME", help="The swarm's manifest: a file, or the name of an included one."
)
@click.option("--model", help="Model: a directory, a name, or a preset of configs/models; default: the manifest's.")
@click.option("--device", type=click.Choice(tuple(presets("devices"))), help="Settings for a kind of device.")
@click.option("--data", help="This node's copy of the questions, if the manifest names a file.")
@click.option("--chain-url", "urls", multiple=True, help="RPC endpoint; repeat it to try several in order.")
@click.option("--contract", help="The coordinator's address.")
@click.option("--bootnode", "bootnodes", multiple=True, help="Multiaddr of a bootnode, besides the contract's.")
def init(
    data_dir: Path,
    swarm: str | None,
    model: str | None,
    device: str | None,
    data: str | None,
    urls: tuple[str, ...],
    contract: str | None,
    bootnodes: tuple[str, ...],
) -> None:
    """Prepare a data directory: swarm.toml, manifest.toml, and the node key swarm.pem.

    On a terminal it asks for what the flags leave out. Existing files are never overwritten.
    """
    home = expanded(data_dir)
    if (home / FILE).exists():
        raise Refusal(Exit.EXISTS, f"{home / FILE} exists and was not changed; edit it, or choose another --data-dir")
    answers = Answers(
        manifest=_manifest(_asked(swarm, "--swarm", f"Swarm (file, or {' / '.join(swarm_manifests())})", "local")),
        urls=tuple(
            _url(url) for url in urls or _asked(None, "--chain-url", "Chain RPC", ChainSettings().urls[0]).split(",")
        ),
        contract=_address(_asked(contract, "--contract", "Coordinator contract")),
        trainer=trainer_settings(
            _asked(
                model, "--model", f"Model (empty: the manifest's; or {' / '.join(presets('models'))})", "", needed=False
            ),
            device or "",
            data or "",
        ),
        bootnodes=bootnodes,
    )
    for line in prepare(home, answers):
        click.echo(line)


def prepare(home: Path, answers: Answers) -> list[str]:
    """Write the directory; return the text for the operator. Raises `Refusal` before anything would be overwritten.

    swarm.toml is written last: while it is missing, `swarm init` may be repeated.
    """
    from node.cli.owner import peer_id_of
    from node.identity import IdentityError, load_or_create, name_of
    from node.store.directory import DataDirectory, is_used

    with DataDirectory(home):
        _keep_or_write(home / "manifest.toml", answers.manifest)
        try:
            key = load_or_create(home / "swarm.pem", used=is_used(home))
        except IdentityError as error:
            raise Refusal(Exit.IDENTITY, str(error)) from error
        _create(home / FILE, config_text(answers).encode())
        load_config(home, {}, {})
    peer_id = peer_id_of(home, key)
    return [
        f"directory  {home}",
        f"name       {name_of(peer_id)}",
        f"peer id    {peer_id}",
        f"address    {key.address} (funding it with gas money is optional)",
        "next       swarm login (your account takes ownership of the node), then swarm run",
    ]


def config_text(answers: Answers) -> str:
    """Return swarm.toml with the choices; every other key has its default (docs/reference/config.md)."""
    lines = ["# Every key, its default and its environment variable: docs/reference/config.md", "", "[chain]"]
    lines += [f"urls = {_toml(answers.urls)}", f"contract = {_toml(answers.contract)}"]
    if answers.trainer:
        lines += ["", "[trainer]", *(f"{name} = {_toml(value)}" for name, value in answers.trainer.items())]
    if answers.bootnodes:
        lines += ["", "[gossip]", f"bootnodes = {_toml(answers.bootnodes)}"]
    return "\n".join(lines) + "\n"


def trainer_settings(model: str, device: str, data: str) -> Settings:
    """Return section [trainer]: the model's preset (or the given model), overridden by the device's."""
    known = presets("models")
    settings: Settings = settings_of(known[model]) if model in known else {"model": _place(model)} if model else {}
    if device:
        settings = settings | settings_of(presets("devices")[device])
    return settings | ({"data": _place(data)} if data else {})


def _toml(value: Scalar | tuple[str, ...]) -> str:
    """Return a value or a list of texts as TOML; its escapes are JSON's except for DEL."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def _asked(given: str | None, flag: str, question: str, default: str | None = None, *, needed: bool = True) -> str:
    """Return the flag's value, else the answer on a terminal, else `default`.

    Raises `Refusal` that names the flag if it is required and there is no terminal.
    """
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(click.prompt(question, default=default, show_default=bool(default))).strip()
    if needed:
        raise Refusal(Exit.USAGE, f"{flag} is missing, and there is no terminal to ask; give {flag}")
    return default or ""


def _asked_urls() -> list[str]:
    return _asked(None, "--chain-url", "Chain RPC", ChainSettings().urls[0]).split(",")


def swarm_manifests() -> dict[str, Path]:
    """Return the included manifests, by name."""
    return {path.stem: path for path in sorted(EXAMPLES.glob("*.toml"))}


def _manifest(choice: str) -> bytes:
    path = swarm_manifests().get(choice, Path(choice).expanduser())
    try:
        content = path.read_bytes()
        load_games()
        parse_manifest(content)
    except OSError as error:
        names = ", ".join(swarm_manifests())
        raise Refusal(
            Exit.CONFIG, f"cannot read the manifest {choice}: {error.strerror}; give a file, or one of {names}"
        ) from error
    except ValueError as error:
        raise Refusal(
            Exit.CONFIG, f"the manifest {path} is not valid: {error}; get it from the swarm's organiser"
        ) from error
    return content


def _url(url: str) -> str:
    if not URL.fullmatch(url.strip()):
        raise Refusal(Exit.USAGE, f"--chain-url {url}: an RPC endpoint starts with ws://, wss://, http:// or https://")
    return url.strip()


def _address(text: str) -> str:
    if not ADDRESS.fullmatch(text):
        raise Refusal(Exit.USAGE, f"--contract {text}: an address is 0x and 40 hex digits; ask the swarm's organiser")
    return text.lower()


def _place(text: str) -> str:
    """Return an existing path as an absolute one (the node may be started elsewhere), a name unchanged."""
    return str(Path(text).expanduser().absolute()) if text and Path(text).expanduser().exists() else text


def _keep_or_write(path: Path, content: bytes) -> None:
    if not path.exists():
        _create(path, content)
    elif path.read_bytes() != content:
        raise Refusal(Exit.EXISTS, f"{path} exists with different content; move it away, or choose another --data-dir")


def _create(path: Path, content: bytes) -> None:
    """Write a new private file completely or not at all; never replace one."""
    try:
        create_private(path, content)
    except FileExistsError as error:
        raise Refusal(Exit.EXISTS, f"{path} has just been written by another process; check it first") from error
    except OSError as error:
        raise Refusal(Exit.STORE, f"cannot write {path}: {error.strerror}; check path and disk space") from error
