"""Errors as an operator reads them."""

from __future__ import annotations


def describe(error: BaseException) -> str:
    """Return an error, or the first one inside nested groups, as one line of at most 300 characters."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
