"""`swarm logout`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from node.cli.onchain import Chain, connect
from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.cli.owner import node_key, owner_option, signed_order, ways, ways_from
from node.exits import Exit, Refusal
from node.identity import NodeKey
from node.identity import delegation_file as kept
from node.identity.owner_orders import OwnerOrder, message_of, order_of
from protocols.typed_data import Revocation


@click.command(short_help="Have the owner sign that this node is no longer theirs.")
@data_dir_option
@config_flags("identity", "chain.urls", "chain.contract")
@ways
@owner_option("The owner; default: the contract's, or the delegation's.")
def logout(data_dir: Path, owner: str, **flags: Any) -> None:
    """Have the owner sign that this node is no longer theirs, and submit it: the node stops counting at once.

    The owner signs as in `swarm login`. The node pays the gas, or the owner if their key is at hand. If neither has
    money, the revocation is saved in revocation.json, and a running node sends it to the relayers.
    """
    chosen = ways_from(flags)
    home = expanded(data_dir)
    config = config_from(home, flags)
    key, chain = node_key(home, config.identity), connect(config.chain)
    revoked = owner or owner_of(home, key, chain)
    order = order_of(chain.domain, Revocation(revoked, key.address, time.time_ns() // 1_000_000))
    signed = signed_order(order, chosen, chain, key)
    if signed is not None:
        answer, owner_key = signed
        click.echo(submit(home, chain, answer, [key, owner_key] if owner_key else [key]))


def owner_of(home: Path, key: NodeKey, chain: Chain) -> str:
    """Return the node's owner: by the contract, else by the local delegation. Raises `Refusal` if it has none."""
    registered = chain.entry(key.address).owner
    here = kept.load_delegation(home, chain.domain)
    owner = registered or (here.delegation.owner if here else None)
    if owner is None:
        raise Refusal(Exit.DELEGATION, f"{key.address} has no owner to log out: it is neither registered nor logged in")
    return owner


def submit(home: Path, chain: Chain, answer: OwnerOrder, candidates: list[NodeKey]) -> str:
    """Submit a signed revocation, or save it for relayers; return the text for the operator."""
    message, signature = message_of(answer), bytes.fromhex(answer.signature)
    assert isinstance(message, Revocation)
    registered = chain.entry(message.node).owner is not None
    payer = chain.payer(candidates) if registered else None
    if payer is not None:
        transaction = chain.revoke(payer, message, signature)
        (home / kept.REVOCATION).unlink(missing_ok=True)
    elif registered:
        kept.save_revocation(home, answer)
    (home / kept.FILE).unlink(missing_ok=True)
    if payer is not None:
        return f"{message.node} is revoked: {transaction}"
    if registered:
        return f"no key here has money for gas: the revocation waits in {home / kept.REVOCATION} for a relayer"
    return f"{message.node} is not registered: its delegation was removed, nothing was sent"
