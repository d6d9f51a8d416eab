"""Exponential back-off with a cap. Pure: whoever waits adds jitter where it is wanted."""

from __future__ import annotations

import math

import msgspec

_DOUBLINGS = 64
"""More would only overflow."""


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait after failures in a row. All fields are seconds.

    The pause doubles from `first` up to `longest`. What worked for `steady` before it failed begins a new row.
    """

    first: float
    longest: float
    steady: float = math.inf

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row; 0.0 after none."""
        if failures <= 0:
            return 0.0
        return min(self.longest, self.first * 2.0 ** min(failures - 1, _DOUBLINGS))

    def count(self, failures: int, worked: float) -> int:
        """Return the failures in a row after one more, which came when it had worked for `worked` seconds."""
        return 1 if worked >= self.steady else failures + 1
