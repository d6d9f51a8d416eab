"""Base58 with Bitcoin's alphabet, as in libp2p's peer ids."""

from __future__ import annotations

from base58 import b58decode, b58encode


def encode(data: bytes) -> str:
    """Return the base58 text of `data`; leading zero bytes become leading "1"s."""
    return b58encode(data).decode()


def decode(text: str) -> bytes:
    """Return the bytes that a base58 text encodes. Raises ValueError for any other character.

    The library overlooks white space at the end: then one peer id would have several spellings.
    """
    if text != text.rstrip():
        raise ValueError("a base58 text with white space at its end")
    return b58decode(text)
