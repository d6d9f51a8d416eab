"""Bodies that are quoted, and what they quote in turn: found in the store, decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Protocol, TypeVar

from protocols.games import Shelf
from protocols.identifiers import Digest
from protocols.wire import Malformed, Rollouts, decode_rollouts

MOST = 64
"""Bodies that one body can lead to: those it quotes, and those that they quote."""
KEPT = 32
"""Decoded bodies that are kept: all peers of a stage quote the same few."""

BodyT = TypeVar("BodyT")


def closure(
    roots: Iterable[Digest],
    find: Callable[[Digest], BodyT | None],
    quoted: Callable[[BodyT], tuple[Digest, ...]],
    most: int = MOST,
) -> tuple[dict[Digest, BodyT], tuple[Digest, ...]]:
    """Return what the roots lead to, themselves included, and the digests that `find` does not know; `most` in all."""
    found: dict[Digest, BodyT] = {}
    missing: list[Digest] = []
    pending = list(dict.fromkeys(roots))
    for digest in pending:
        if len(found) + len(missing) >= most:
            break
        body = find(digest)
        if body is None:
            missing.append(digest)
        else:
            found[digest] = body
            pending += [each for each in dict.fromkeys(quoted(body)) if each not in pending]
    return found, tuple(missing)


class BodyLookup(Protocol):
    """Where bodies are found (`node.ports.Bodies`, of which only this is needed)."""

    def get(self, digest: Digest) -> bytes | None:
        """Return the body, or None if it is not (or no longer) kept."""


class QuoteResolver:
    """Decoded bodies of a store. Safe to use from several threads."""

    def __init__(self, bodies: BodyLookup) -> None:
        self._bodies = bodies
        self._decoded = lru_cache(maxsize=KEPT)(self._decode)

    def shelf(self, quoted: Iterable[Digest]) -> tuple[Shelf, tuple[Digest, ...]]:
        """Return the quoted bodies with what they quote in turn, and the digests of those that are not here."""
        return closure(quoted, self._find, lambda body: body.quoted)

    def _find(self, digest: Digest) -> Rollouts | None:
        try:
            return self._decoded(digest)
        except KeyError:
            return None

    def _decode(self, digest: Digest) -> Rollouts:
        """Read a body. Raises KeyError if there is none, so that this is not remembered."""
        body = self._bodies.get(digest)
        if body is None:
            raise KeyError(digest)
        try:
            return decode_rollouts(body, digest, len(body))
        except Malformed as problem:
            raise KeyError(digest) from problem
