"""Three-word names of peers: the same as RL Swarm's for the same peer id.

The word lists in `peer-names.json` are RL Swarm's (https://github.com/gensyn-ai/rl-swarm, MIT licence,
Copyright (c) 2025 Gensyn).
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

import msgspec


class _Words(msgspec.Struct, frozen=True):
    adjectives: tuple[str, ...]
    animals: tuple[str, ...]


def name_of(peer_id: str) -> str:
    """Return "adjective adjective animal" from bytes 2, 1 and 0 of the peer id's MD5."""
    words = _words()
    digest = hashlib.md5(peer_id.encode(), usedforsecurity=False).digest()
    first = words.adjectives[digest[2] % len(words.adjectives)]
    second = words.adjectives[digest[1] % len(words.adjectives)]
    return f"{first} {second} {words.animals[digest[0] % len(words.animals)]}"


@cache
def _words() -> _Words:
    data = resources.files("node.identity").joinpath("peer-names.json").read_bytes()
    return msgspec.json.decode(data, type=_Words)
