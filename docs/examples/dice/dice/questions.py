"""The data source: `source = "dice:THROWS"` in a manifest's section [data], with `sides` among its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def records(name: str, spec: Any, copy: str) -> Iterator[tuple[str, str]]:
    """Yield (question, answer) pairs.

    `name` is what follows the colon, `spec` the manifest's section [data], `copy` the path of this node's own copy
    or "". The same arguments must give the same pairs everywhere: no clock, no `random`.
    """
    throws, sides = int(name), int(spec.parameters.get("sides", 6))
    for number in range(throws):
        first, second = number % sides + 1, number // sides % sides + 1
        yield f"Throw {number} shows {first} and {second}. What is their sum?", str(first + second)
