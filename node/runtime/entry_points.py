"""Plug-ins of installed packages, found by entry point.

Apart from `node.runtime.game_plugins`, since graders' workers start from here: they load neither games nor the event
loop.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

DATA = "swarm.data"
"""`SCHEME = "package:function"`; the function takes (name, `DataSpec`, own copy's path or "") and returns an iterable
of (question, answer) texts; `node.data.load` splits and digests them."""

GRADERS = "swarm.graders"
"""`NAME/VERSION = "package:function"`; a `protocols.grading.Grader`, run in the pool of `node.grading`."""


def plugin_names(group: str) -> list[str]:
    """Return the names that installed packages offer in a group."""
    return sorted({each.name for each in entry_points(group=group)})


def load_plugin(group: str, name: str) -> Any:
    """Return the object behind an entry point. Raises ValueError in one line: none, several, or it does not load."""
    found = {(each.value, each.dist.name if each.dist else ""): each for each in entry_points(group=group, name=name)}
    if not found:
        raise ValueError(f"no installed package offers {name!r} in {group}; there are {plugin_names(group) or 'none'}")
    if len(found) > 1:
        packages = sorted(package for _, package in found)
        raise ValueError(f"{name!r} in {group} is offered by {packages}; uninstall all but one")
    [entry] = found.values()
    return loaded(entry)


def loaded(entry: EntryPoint) -> Any:
    """Return the object behind an entry point; a class is called without arguments. Raises ValueError in one line."""
    try:
        found = entry.load()
        return found() if isinstance(found, type) else found
    except Exception as error:  # a package that somebody else wrote may fail with anything
        raise ValueError(f"the plug-in {entry.value!r} does not load: {type(error).__name__}: {error}") from error
