"""What the tests of the library's defects share: which rows of the register they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from node.network.libp2p_patches.repair import Repair
from node.network.libp2p_patches.repairs import REPAIRS

SHOWN: set[tuple[str, str]] = set()

TestT = Callable[..., Any]


def shows(target: str, *names: str) -> Callable[[TestT], TestT]:
    """Note which rows of the register a test is about."""
    SHOWN.update((target, name) for name in names)
    return lambda test: test


def row(target: str, name: str) -> Repair:
    return next(each for each in REPAIRS if (each.target, each.name) == (target, name))
