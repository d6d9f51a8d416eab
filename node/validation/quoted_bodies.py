"""Quoted bodies, and the bodies that they quote in turn: found in the store, decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Protocol, TypeVar

from protocols.games import QuotedBodies
from protocols.identifiers import Digest
from protocols.wire import Malformed, Rollouts, decode_rollouts

MOST = 64
"""Most bodies that one body can lead to: those it quotes, and those that they quote."""
KEPT = 32
"""Decoded bodies that are cached: all peers of a stage quote the same few."""

BodyT = TypeVar("BodyT")


def closure(
    roots: Iterable[Digest],
    find: Callable[[Digest], BodyT | None],
    quoted: Callable[[BodyT], tuple[Digest, ...]],
    most: int = MOST,
) -> tuple[dict[Digest, BodyT], tuple[Digest, ...]]:
    """Return everything reachable from the roots, including them, and the digests that `find` does not know; at most
    `most` in all."""
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
    """Lookup of bodies: the part of `node.ports.bodies.Bodies` that is needed here."""

    def get(self, digest: Digest) -> bytes | None:
        """Return the body, None if it is not in the store."""


class QuoteResolver:
    """Decoded bodies of a store. Safe to use from several threads."""

    def __init__(self, bodies: BodyLookup) -> None:
        self._bodies = bodies
        self._decoded = lru_cache(maxsize=KEPT)(self._decode)

    def resolve(self, quoted: Iterable[Digest]) -> tuple[QuotedBodies, tuple[Digest, ...]]:
        """Return the quoted bodies with those that they quote in turn, and the digests of the missing ones."""
        return closure(quoted, self._find, lambda body: body.quoted)

    def _find(self, digest: Digest) -> Rollouts | None:
        try:
            return self._decoded(digest)
        except KeyError:
            return None

    def _decode(self, digest: Digest) -> Rollouts:
        """Decode a body. Raises KeyError if there is none, so that its absence is not cached."""
        body = self._bodies.get(digest)
        if body is None:
            raise KeyError(digest)
        try:
            return decode_rollouts(body, digest, len(body))
        except Malformed as problem:
            raise KeyError(digest) from problem
