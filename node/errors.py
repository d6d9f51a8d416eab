"""Errors as an operator reads them, and as they lie in groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

ErrorT = TypeVar("ErrorT", bound=BaseException)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, or all that are inside nested groups, in order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def first(error: BaseException, kind: type[ErrorT]) -> ErrorT | None:
    """Return the first error of a kind: `error` itself, or one inside nested groups. None if there is none."""
    return next((each for each in leaves(error) if isinstance(each, kind)), None)


def describe(error: BaseException) -> str:
    """Return an error, or the first one inside nested groups, as one line of at most 300 characters."""
    error = next(leaves(error))
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
