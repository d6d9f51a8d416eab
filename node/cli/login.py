"""`swarm login`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from node.cli.onchain import connect
from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.cli.owner import SigningOptions, node_key, owner_option, signed_here, signed_order, ways, ways_from
from node.config import Config
from node.identity.delegation_file import save_delegation
from node.identity.key_owner_cases import line, refuse_other_owner
from node.identity.owner_orders import DAYS, encode_order, order_of
from node.identity.rsa import load_rsa, write_statement
from protocols.identifiers import Address
from protocols.typed_data import Delegation

DAY_SECONDS = 86_400


@click.command(short_help="Have the owner sign that this node is theirs.")
@data_dir_option
@config_flags("identity", "chain.urls", "chain.contract")
@ways
@owner_option("The only account that may sign; default: any.")
@click.option("--days", type=click.IntRange(1, 36_500), default=DAYS, show_default=True, help="How long it lasts.")
@click.option("--sign", "sign_file", metavar="FILE|-", help="On the owner's machine: sign what a node printed.")
def login(data_dir: Path, owner: str, days: int, sign_file: str | None, **flags: Any) -> None:
    """Have the owner sign that this node is theirs; the signature is saved in delegation.json.

    The owner's key is taken from --keystore, from SWARM_OWNER_KEY or from the credential owner-key. If it is on
    another machine, the node prints a line (--request), the other machine signs it (swarm login --sign), and this one
    takes its answer (--answer). Or sign in the browser (--browser). The owner needs no money.
    """
    chosen = ways_from(flags)
    if sign_file is not None:
        click.echo(encode_order(signed_here(sign_file, chosen)))
        return
    home = expanded(data_dir)
    take_delegation(home, config_from(home, flags), owner, days, chosen)


def take_delegation(home: Path, config: Config, owner: Address, days: int, chosen: SigningOptions) -> None:
    """Request a delegation, check and save it. Raises `Refusal`, also if the contract has another owner for the
    node."""
    key, chain = node_key(home, config.identity), connect(config.chain)
    expiry = chain.now() + days * DAY_SECONDS
    message = Delegation(owner, key.address, time.time_ns() // 1_000_000, expiry)
    signed = signed_order(order_of(chain.domain, message), chosen, chain, key)
    if signed is None:
        return
    answer, _ = signed
    facts = chain.facts(key.address, answer.owner)
    refuse_other_owner(facts)
    save_delegation(home, answer, key)
    if rsa := load_rsa(home):
        write_statement(home, rsa, chain.domain, key.address)
    click.echo(line(facts))
