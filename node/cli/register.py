"""`swarm register`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from node.cli.onchain import Chain, Registration, connect
from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.cli.owner import node_key
from node.exits import Exit, Refusal
from node.identity import NodeKey
from node.identity.delegation_file import load_delegation
from node.identity.key_owner_cases import line, refuse_other_owner
from protocols.delegation import renews
from protocols.signed_messages import SignedDelegation
from protocols.typed_data import Delegation

FOR_EVER = (1 << 64) - 1
"""Expiry of a node that is its own owner (never): nobody else could renew it."""


@click.command(short_help="Register this node, or renew its delegation.")
@data_dir_option
@config_flags("identity", "chain.urls", "chain.contract")
@click.option("--own", is_flag=True, help="Without an owner: the node key owns itself.")
def register(data_dir: Path, own: bool, **flags: Any) -> None:
    """Register this node for its owner, or renew its delegation, in a transaction paid by the node key.

    A running node does not need this: it registers itself, even without money, because relayers submit its delegation.
    If the delegation is already registered, nothing is sent.
    """
    home = expanded(data_dir)
    config = config_from(home, flags)
    key, chain = node_key(home, config.identity), connect(config.chain)
    signed = delegation_of(home, key, chain, own)
    facts = chain.facts(key.address, signed.delegation.owner)
    refuse_other_owner(facts)
    entry = chain.entry(key.address)
    if not is_news(entry, signed.delegation):
        click.echo(line(facts))
        return
    if chain.payer([key]) is None:
        raise Refusal(
            Exit.CHAIN,
            f"{key.address} has no money for gas; fund it, or start the node (swarm run), which relayers then register",
        )
    transaction = chain.register(key, signed)
    done = "renewed" if entry.owner else "registered"
    click.echo(f"{key.address} is {done} for its owner {signed.delegation.owner}: {transaction}")


def delegation_of(home: Path, key: NodeKey, chain: Chain, own: bool) -> SignedDelegation:
    """Return the delegation to submit: the saved one, or the node's own. Raises `Refusal` if there is none."""
    signed = load_delegation(home, chain.domain)
    if signed is not None and signed.delegation.node == key.address:
        return signed
    if not own:
        raise Refusal(
            Exit.DELEGATION,
            "no owner has signed for this node here; run `swarm login`, or give --own: the key then owns itself",
        )
    message = Delegation(key.address, key.address, time.time_ns() // 1_000_000, FOR_EVER)
    signature = key.sign_message(chain.domain, message)
    return SignedDelegation.of(message, signature, signature)


def is_news(entry: Registration, delegation: Delegation) -> bool:
    """Return True if a delegation changes the contract's entry: the node is new, or it lasts longer."""
    if entry.owner is None:
        return True
    return renews(delegation, entry.serial, entry.expiry)
