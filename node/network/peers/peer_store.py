"""The peer store: addresses of peers and their penalties, bounded, in one JSON file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from node.files.private import replace_private

log = structlog.get_logger()

MAX_PEERS = 1024
MAX_ADDRESSES = 4
PENALTY_LIMIT = 100.0
PENALTY_HALF_LIFE = 600.0
BAN_SECONDS = 1800.0
"""A peer whose penalty reaches the limit is banned; penalties halve every ten minutes."""


class PeerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One peer. Times are Unix seconds, 0.0 for never; `penalty` is as of `penalised`."""

    addresses: tuple[str, ...] = ()
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
        self._put(peer, msgspec.structs.replace(entry, addresses=addresses, seen=now))

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
        """Return peers with addresses that are not banned, those connected last first."""
        able = [(peer, entry) for peer, entry in self._entries.items() if entry.addresses and entry.banned_until <= now]
        able.sort(key=lambda pair: -pair[1].seen)
        return [(peer, entry.addresses) for peer, entry in able]

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
        """Forget the peer not connected for longest; a banned one stays until only banned ones are left."""
        others = (peer for peer in self._entries if peer != keep)
        entries, now = self._entries, self._now
        gone = min(others, key=lambda peer: (max(entries[peer].banned_until, now), entries[peer].seen))
        del self._entries[gone]


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
