"""Whom a data directory knows by name: peers that were met, peers of the rounds kept, and the node itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

from node.cli.owner import peer_id_of
from node.config import Config
from node.identity import public_key_of_peer_id
from node.identity.key import load
from node.store.rounds import FILE, recent_peer_ids
from protocols.identifiers import Address, address_of_public_key


def known_peer_ids(home: Path, config: Config) -> dict[Address, str]:
    """Return peer ids by address. What is missing in the directory is left out: names are only for reading."""
    found = _met(home / "peers.json") | recent_peer_ids(home / FILE)
    if (home / config.identity).exists():
        key = load(home / config.identity)
        found[key.address] = peer_id_of(home, key)
    return found


def _met(path: Path) -> dict[Address, str]:
    """Return the peers of the peer book whose id holds their key."""
    try:
        book = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, ValueError):
        return {}
    found = {}
    for peer_id in book:
        try:
            found[address_of_public_key(public_key_of_peer_id(peer_id))] = peer_id
        except ValueError:
            continue
    return found
