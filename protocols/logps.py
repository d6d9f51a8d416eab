"""Checks on claimed log-probabilities: finite, at most 0, and not all of them exactly 0."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

from protocols.wire import Completion

CERTAIN_LEAST = 256
"""Tokens from which a body is implausible if all its log-probabilities are exactly 0: sampling at a temperature leaves
some uncertainty about some token."""

_NEGATIVE = bytes(range(0x80, 0x100))
"""Top bytes of little-endian float32 numbers with their sign set."""
_INFINITE = 0xFF80_0000
"""Bits of minus infinity: values at or above it are infinite or not a number."""


def are_possible(packed: bytes) -> bool:
    """Return True if little-endian float32 values are all finite and at most 0.

    The sign bytes alone decide, except for zeros and huge values.
    """
    top = packed[3::4]
    if not top.translate(None, _NEGATIVE) and 0xFF not in top:
        return True
    return all(bits == 0 or 0x8000_0000 <= bits < _INFINITE for bits in _bits(packed))


def are_certain(completions: Iterable[Completion]) -> bool:
    """Return True if a body claims probability 1 for each of many tokens."""
    packed = b"".join(each.logps for each in completions)
    return len(packed) >= 4 * CERTAIN_LEAST and not packed.strip(b"\0")


def _bits(packed: bytes) -> array[int]:
    found = array("I", packed)
    if sys.byteorder == "big":
        found.byteswap()
    return found
