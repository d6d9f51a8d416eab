"""Quoting other peers: who is quoted is drawn by the round's seed, what is quoted is made harmless and short."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from protocols.identifiers import Digest, Seed

STRUCK = "·"
"""Stands where a word of the game's own language was struck out of a quote."""
ELLIPSIS = " ... "
MAX_QUOTE_CHARS = 1 << 16
"""More characters than any quote has."""

_MARKUP = re.compile(r"<(?=[|/!A-Za-z_])")
_PLACE = re.compile(r"\{([a-z]+)\}")


def draw_hash(seed: Seed, digest: Digest, number: int) -> int:
    """Return 64 bits that nobody could choose: they follow from the round's seed, a body and a number."""
    key = seed + digest + number.to_bytes(4, "big")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"swarm-quote").digest(), "big")


def drawn(seed: Seed, stage: int, digests: Iterable[Digest], most: int) -> tuple[Digest, ...]:
    """Return at most `most` bodies of a stage, in the order of the draw: alike for all who have the same ones."""
    return tuple(sorted(set(digests), key=lambda digest: (draw_hash(seed, digest, stage), digest))[:most])


def content_key(text: str) -> bytes:
    """Return the 16 bytes by which a text is known, whoever wrote it."""
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()


def quotable(text: str, words: Sequence[str], max_chars: int) -> str:
    """Return a text as one line of at most `max_chars` characters that can't be taken for anything but a quote.

    Special tokens and tags lose their bracket, the game's own `words` are struck out, blanks are run together, and what
    is too long loses its middle.
    """
    line = " ".join(_MARKUP.sub(STRUCK, text).split())
    for word in words:
        plain = " ".join(word.split())
        if plain:
            line = re.sub(re.escape(plain), STRUCK, line, flags=re.IGNORECASE)
    return cut(line, max_chars)


def cut(text: str, max_chars: int) -> str:
    """Return a text of at most `max_chars` characters: its beginning and its end, which says more."""
    if len(text) <= max_chars:
        return text
    if max_chars <= 2 * len(ELLIPSIS):
        return text[len(text) - max_chars :] if max_chars > 0 else ""
    left = (max_chars - len(ELLIPSIS)) // 3
    return text[:left] + ELLIPSIS + text[len(text) - (max_chars - len(ELLIPSIS) - left) :]


def filled(template: str, parts: Mapping[str, str]) -> str:
    """Return a template with each {name} of `parts` put in, in one pass: what is put in is not searched again."""
    return _PLACE.sub(lambda found: parts.get(found.group(1), found.group(0)), template)


def places(template: str) -> frozenset[str]:
    """Return the names that a template has a place for."""
    return frozenset(_PLACE.findall(template))
