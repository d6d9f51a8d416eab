"""How an owner signs an order: shared by `swarm login` and `swarm logout`."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from node.cli.onchain import Chain
from node.exits import Exit, Refusal
from node.identity import NodeKey
from node.identity.key import load
from node.identity.keystore import open_keystore
from node.identity.owner_orders import (
    OwnerOrder,
    answered,
    decode_order,
    domain_of,
    encode_order,
    message_of,
    owner_signed,
    problem,
)
from node.identity.rsa import load_rsa
from node.identity.secret import OWNER_KEY, OWNER_PASSPHRASE, Ask, find, known
from protocols.typed_data import digest

Decorated = Callable[..., Any]


class SigningOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the signature comes from; at most one is set."""

    keystore: Path | None = None
    passphrase_file: Path | None = None
    browser: bool = False
    request: bool = False
    answer: str | None = None


WAYS = (
    click.option("--keystore", type=click.Path(path_type=Path), metavar="FILE", help="The owner's v3 keystore file."),
    click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Its passphrase file; default: SWARM_OWNER_PASSPHRASE, the credential owner-passphrase, or the terminal.",
    ),
    click.option("--browser", is_flag=True, help="Sign with the wallet in this machine's browser."),
    click.option("--request", is_flag=True, help="Print the request to sign on another machine, and exit."),
    click.option("--answer", metavar="FILE|-", help="Take the other machine's answer."),
)


OWNER = re.compile("(0x[0-9a-fA-F]{40})?")


def owner_option(text: str) -> Callable[[Decorated], Decorated]:
    """Return the decorator that adds --owner, a lower-case address or ""."""

    def checked(_context: object, _parameter: object, value: str) -> str:
        if not OWNER.fullmatch(value):
            raise Refusal(Exit.USAGE, f"--owner {value}: an address is 0x and 40 hex digits")
        return value.lower()

    return click.option("--owner", metavar="ADDRESS", default="", callback=checked, help=text)


def ways(function: Decorated) -> Decorated:
    """Add the options for the source of the signature."""
    for option in reversed(WAYS):
        function = option(function)
    return function


def ways_from(flags: dict[str, Any]) -> SigningOptions:
    """Extract these options from a command's parameters. Raises `Refusal` if two of them contradict."""
    names = ("keystore", "passphrase_file", "browser", "request", "answer")
    chosen = SigningOptions(**{name: flags.pop(name) for name in names})
    if sum(map(bool, (chosen.keystore, chosen.browser, chosen.request, chosen.answer))) > 1:
        raise Refusal(Exit.USAGE, "give only one of --keystore, --browser, --request, --answer")
    return chosen


def signed_order(
    order: OwnerOrder, chosen: SigningOptions, chain: Chain, node: NodeKey
) -> tuple[OwnerOrder, NodeKey | None] | None:
    """Return the signed and checked order, and the owner's key if it is at hand; None if the order was only printed.

    Raises `Refusal` if it is not signed by its owner.
    """
    owner: NodeKey | None = None
    if chosen.request:
        click.echo(encode_order(order))
        return None
    if chosen.browser:
        answer = _by_browser(order, chain, node)
    elif chosen.answer is not None:
        answer = decode_order(_read(chosen.answer))
    elif key := owner_key(chosen):
        owner, answer = key, sign(order, key)
    else:
        answer = _by_paste(order)
    if wrong := judged(answer, chain, node):
        raise Refusal(Exit.DELEGATION, wrong)
    return answer, owner


def owner_key(chosen: SigningOptions) -> NodeKey | None:
    """Return the owner's key: from the given keystore, else from environment or credentials; None if it is not here."""
    if chosen.keystore is not None:
        return open_keystore(chosen.keystore, find(OWNER_PASSPHRASE, chosen.passphrase_file, os.environ, terminal()))
    secret = known(OWNER_KEY, None, os.environ)
    if secret is None:
        return None
    try:
        return NodeKey(bytes.fromhex(secret.reveal().decode().strip().removeprefix("0x")))
    except ValueError:
        raise Refusal(
            Exit.SECRET, "the owner's key is not 64 hex digits; give the private key, or a --keystore"
        ) from None


def sign(order: OwnerOrder, key: NodeKey) -> OwnerOrder:
    """Return the order, signed by an owner's key."""
    named = msgspec.structs.replace(order, owner=order.owner or key.address)
    return answered(named, key.address, key.sign_message(domain_of(named), message_of(named)))


def judged(answer: OwnerOrder, chain: Chain, node: NodeKey) -> str:
    """Return what is wrong with an answer, "" if it is the requested order, signed by its owner."""
    if wrong := problem(answer, chain.domain, node.address, time.time()):
        return f"the answer can't be used: {wrong}"
    message, signature = message_of(answer), bytes.fromhex(answer.signature)
    if owner_signed(chain.domain, message, signature):
        return ""
    if chain.wallet_accepts(answer.owner, digest(chain.domain, message), signature):
        return ""
    return f"{answer.owner} did not sign this; sign it with that account, or request it again"


def about(order: OwnerOrder) -> str:
    """Return an order in words, for the person who signs it."""
    if order.kind == "revocation":
        what = f"Node {order.node} is no longer mine, from now on."
    else:
        until = datetime.fromtimestamp(order.expiry, UTC)
        what = (
            f"Node {order.node} is mine until {until:%Y-%m-%d %H:%M} UTC: it may vote and report for me, nothing else."
        )
    return f"{what}\nSwarm: contract {order.contract} on chain {order.chain_id}"


def node_key(home: Path, identity: str) -> NodeKey:
    """Return the node's key. Raises `Refusal` if there is none or it can't be used."""
    try:
        return load(home / identity)
    except FileNotFoundError as error:
        raise Refusal(
            Exit.IDENTITY, f"{home / identity} does not exist; run `swarm init`, `swarm keys new` or `swarm restore`"
        ) from error


def peer_id_of(home: Path, key: NodeKey) -> str:
    """Return the peer id of this identity: the imported RSA key's, if there is one."""
    rsa = load_rsa(home)
    return rsa.peer_id if rsa else key.peer_id


def terminal(confirm: bool = False) -> Ask | None:
    """Return the function that asks for a passphrase on a terminal, without echo; None without a terminal."""
    if not sys.stdin.isatty():
        return None
    return lambda what: str(click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True))


def _by_browser(order: OwnerOrder, chain: Chain, node: NodeKey) -> OwnerOrder:
    import trio

    from node.identity.browser import ask_wallet

    async def judge(answer: OwnerOrder) -> str:
        return await trio.to_thread.run_sync(judged, answer, chain, node)

    def opened(url: str) -> None:
        """Print the link. Starting a browser from here would show its token in the process list."""
        click.echo(f"Open this in the browser with your wallet:\n{url}", err=True)

    return trio.run(ask_wallet, order, judge, about(order), opened)


def _by_paste(order: OwnerOrder) -> OwnerOrder:
    if not sys.stdin.isatty():
        raise Refusal(
            Exit.USAGE,
            "the owner's key is not here and there is no terminal; give --keystore, SWARM_OWNER_KEY, or --request and "
            "then --answer",
        )
    click.echo("Sign this where the owner's key is (swarm login --sign -), then paste the answer:\n", err=True)
    click.echo(encode_order(order))
    return decode_order(str(click.prompt("\nAnswer", prompt_suffix=": ", err=True)))


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(Exit.USAGE, f"cannot read {file}: {error}; give the file with the order") from error


def signed_here(file: str, chosen: SigningOptions) -> OwnerOrder:
    """Return another machine's order, signed by the owner's key on this one; print on stderr what is signed."""
    order = decode_order(_read(file))
    click.echo(about(order), err=True)
    key = owner_key(chosen)
    if key is None:
        raise Refusal(Exit.SECRET, "the owner's key is not here; give --keystore FILE, or SWARM_OWNER_KEY")
    return sign(order, key)
