"""`swarm whoami`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from node.cli.onchain import Chain, connect
from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.cli.owner import node_key, peer_id_of
from node.identity import NodeKey, name_of
from node.identity.delegation_file import load_kept
from node.identity.key_owner_cases import EXIT, case_of, line
from node.store.restore_mark import is_marked

ETHER = 10**18
LONGEST_DATE = 1 << 32
"""Chain seconds from which an expiry means "never": the contract stores 32 bits."""


@click.command(short_help="Show this node's key, owner and registration.")
@data_dir_option
@config_flags("identity", "chain.urls", "chain.contract")
def whoami(data_dir: Path, **flags: Any) -> int:
    """Show this node's key, its owner, and its registration.

    Exits with 0 if it is registered for its owner, 12 if it is new, 13 if it is new but its owner has other nodes, and
    11 if it belongs to another owner.
    """
    home = expanded(data_dir)
    config = config_from(home, flags)
    key = node_key(home, config.identity)
    kept = load_kept(home)
    peer_id = peer_id_of(home, key)
    _row("name", name_of(peer_id))
    _row("peer id", peer_id)
    _row("address", key.address)
    _row("owner", kept.order.owner if kept else "no delegation here")
    if kept:
        _row("held until", _date(kept.order.expiry))
    if is_marked(home):
        _row("restored", "doppelganger protection: waits a whole round before it acts")
    return _registration(connect(config.chain), key, kept.order.owner if kept else None)


def _registration(chain: Chain, key: NodeKey, claimed: str | None) -> int:
    """Print the registration; return the exit code of the case."""
    entry = chain.entry(key.address)
    _row("balance", f"{chain.balance(key.address) / ETHER:.6f}")
    _row("contract", f"{chain.contract} on chain {chain.domain.chain_id}")
    if entry.owner:
        over = entry.expiry <= chain.now()
        _row("registered", f"for {entry.owner}, counts from round {entry.since} on")
        _row("delegation", f"{'expired on' if over else 'valid until'} {_date(entry.expiry)}")
    facts = chain.facts(key.address, claimed)
    click.echo(line(facts))
    return EXIT[case_of(facts)]


def _row(title: str, value: str) -> None:
    click.echo(f"{title:<11} {value}")


def _date(seconds: int) -> str:
    if seconds >= LONGEST_DATE - 1:
        return "forever"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
