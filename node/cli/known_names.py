"""Names that a data directory knows: those of known peers, of peers in round reports, and of the node itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

from node.cli.owner import peer_id_of
from node.config import Config
from node.identity.key import load
from node.identity.local_peer import address_of_peer
from node.store.round_reports import FILE, recent_peer_ids
from protocols.identifiers import Address


def known_peer_ids(home: Path, config: Config) -> dict[Address, str]:
    """Return peer ids by address. Missing files are skipped: names are for display only."""
    found = _met(home / "peers.json") | recent_peer_ids(home / FILE)
    if (home / config.identity).exists():
        key = load(home / config.identity)
        found[key.address] = peer_id_of(home, key)
    return found


def _met(path: Path) -> dict[Address, str]:
    """Return the peers in peers.json whose id contains their key."""
    try:
        book = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, ValueError):
        return {}
    return {address: peer_id for peer_id in book if (address := address_of_peer(peer_id))}
