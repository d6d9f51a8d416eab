"""The peer store: addresses of peers and their penalties, bounded, in one JSON file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from node.files.private import replace_private
from node.network.peers.peer_sampling import KnownPeer, network_group

log = structlog.get_logger()

MAX_PEERS = 1024
MAX_ADDRESSES = 4
PENALTY_LIMIT = 100.0
PENALTY_HALF_LIFE = 600.0
BAN_SECONDS = 1800.0
"""A peer whose penalty reaches the limit is banned; penalties halve every ten minutes."""


class PeerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One peer. Times are Unix seconds, 0.0 for never; `penalty` is as of `penalised`. `since` is when this node was
    connected to it for the first time, `seen` when it was last."""

    addresses: tuple[str, ...] = ()
    since: float = 0.0
    seen: float = 0.0
    penalty: float = 0.0
    penalised: float = 0.0
    banned_until: float = 0.0


class PeerStore:
    """What is known of peers, by peer id. `save` writes it, whole and atomically."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries: dict[str, PeerRecord] = _load(path) if path else {}
        self._dirty = False
        self._now = 0.0
        """The latest time given: a ban that ended before it keeps no peer in the store."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, peer: str) -> PeerRecord:
        """Return what is known of a peer, possibly nothing."""
        return self._entries.get(peer, PeerRecord())

    def add_addresses(self, peer: str, addresses: Iterable[str]) -> None:
        """Add addresses behind those known. A peer that was never connected may be forgotten again."""
        entry = self.get(peer)
        fresh = [address for address in addresses if address not in entry.addresses]
        if fresh:
            known = (*entry.addresses, *fresh)[:MAX_ADDRESSES]
            self._put(peer, msgspec.structs.replace(entry, addresses=known))

    def mark_connected(self, peer: str, now: float, address: str | None = None) -> None:
        """Note that a peer is connected, and the address that was dialled: it comes first from now on."""
        entry, self._now = self.get(peer), max(self._now, now)
        others = tuple(each for each in entry.addresses if each != address)
        addresses = ((address, *others) if address else entry.addresses)[:MAX_ADDRESSES]
        self._put(peer, msgspec.structs.replace(entry, addresses=addresses, seen=now, since=entry.since or now))

    def penalise(self, peer: str, points: float, now: float) -> bool:
        """Add penalty points; return True if this bans the peer."""
        entry, self._now = self.get(peer), max(self._now, now)
        penalty: float = points + entry.penalty * 0.5 ** (max(0.0, now - entry.penalised) / PENALTY_HALF_LIFE)
        banned = penalty >= PENALTY_LIMIT
        entry = msgspec.structs.replace(
            entry,
            penalty=0.0 if banned else penalty,
            penalised=now,
            banned_until=now + BAN_SECONDS if banned else entry.banned_until,
        )
        self._put(peer, entry)
        return banned

    def is_banned(self, peer: str, now: float) -> bool:
        """Return True if a peer is banned at the moment."""
        return self.get(peer).banned_until > now

    def dialable(self, now: float) -> list[tuple[str, tuple[str, ...]]]:
        """Return peers with addresses that are not banned, in no order that means anything."""
        return [
            (peer, entry.addresses)
            for peer, entry in self._entries.items()
            if entry.addresses and entry.banned_until <= now
        ]

    def tellable(self, now: float) -> list[KnownPeer]:
        """Return the peers that strangers may be told of: this node was connected to them, and has not banned them."""
        return [
            KnownPeer(peer, entry.addresses[0], entry.since)
            for peer, entry in self._entries.items()
            if entry.addresses and entry.seen and entry.banned_until <= now
        ]

    def save(self) -> None:
        """Write the store where it changed. A disk that fails costs the store, not the node: it is logged."""
        if not self._dirty or self._path is None:
            return
        try:
            replace_private(self._path, msgspec.json.format(msgspec.json.encode(self._entries), indent=1))
        except OSError as error:
            log.warning("gossip.peer_store_unwritable", path=str(self._path), reason=error.strerror)
            return
        self._dirty = False

    def _put(self, peer: str, entry: PeerRecord) -> None:
        self._entries[peer] = entry
        self._dirty = True
        if len(self._entries) > MAX_PEERS:
            self._forget_one(peer)

    def _forget_one(self, keep: str) -> None:
        """Forget a peer of the network with the most: new ones of one network must not push out everybody else.

        Of these the one not connected for longest; a banned one stays until only banned ones are left.
        """
        entries, now = self._entries, self._now
        crowd = Counter(map(self._group, entries))
        others = (peer for peer in entries if peer != keep)
        del entries[
            min(
                others,
                key=lambda peer: (
                    entries[peer].banned_until > now,
                    -crowd[self._group(peer)],
                    entries[peer].banned_until,
                    entries[peer].seen,
                ),
            )
        ]

    def _group(self, peer: str) -> str:
        addresses = self._entries[peer].addresses
        return network_group(addresses[0]) if addresses else ""


def _load(path: Path) -> dict[str, PeerRecord]:
    """Read the store. An unreadable one is moved aside and a new one begun: it can be learnt again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, PeerRecord])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("gossip.peer_store_unreadable", path=str(path), reason=str(error))
        if path.is_file():
            path.replace(path.with_name(f"{path.name}.bad"))
        return {}
