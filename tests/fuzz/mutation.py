"""Mutations of encoded messages: those of any fuzzer, and those that MessagePack makes dangerous."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

BOMBS = (
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdc\xff\xff",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xd3\x80\0\0\0\0\0\0\0", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xc1", b"\xc0",
    b"\xc7\xff\x01", b"\xd8\x7f" + bytes(16), b"\xa4\xff\xfe\xf0\x80", b"\x91" * 2000, b"\x81" * 2000, b"\x90", b"\x80",
)  # fmt: skip
"""Lengths that are not there, numbers at their ends, broken UTF-8, extensions, deep nesting, empty containers."""

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def mutated(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """Return a sample after one to four mutations; at times nothing but noise."""
    data = rng.choice(samples)
    for _ in range(rng.randrange(4) + 1):
        data = MUTATIONS[rng.randrange(len(MUTATIONS))](rng, data, samples)
    return data


def _flip(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) or 1)
    return data[:at] + bytes([(data[at] if data else 0) ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _replace(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) or 1)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _cut(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _leave_out(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.randrange(1, 40) :]


def _repeat(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at : at + rng.randrange(1, 64)] * rng.randrange(2, 9) + data[at:]


def _splice(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    other = rng.choice(samples)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _bomb(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(BOMBS) + data[at + rng.randrange(2) :]


def _noise(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 33)) + data[at:]


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _replace, _replace, _cut, _leave_out, _repeat, _splice, _bomb, _noise)
