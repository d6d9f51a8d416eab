"""Games of other packages, by entry point (`swarm.games`). A broken package is logged and skipped."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

import structlog

from node.errors import describe
from node.runtime.entry_points import loaded
from protocols.games import register_game

log = structlog.get_logger()

GAMES = "swarm.games"
"""Group of the entry points; each names an object, or a class without arguments, that is a
`protocols.games.interface.Game`."""


@cache
def load_games() -> tuple[str, ...]:
    """Register the games of installed packages, once; return their names."""
    names = []
    for found in sorted(entry_points(group=GAMES), key=lambda each: each.name):
        try:
            register_game(found.name, loaded(found))
        except ValueError as error:
            log.warning("game.unusable", game=found.name, package=found.value, reason=describe(error))
        else:
            names.append(found.name)
    return tuple(names)
