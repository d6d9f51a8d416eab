"""What other packages bring: games by entry point (`swarm.games`). A broken package is told, and left out."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

import structlog

from node.errors import describe
from protocols.games import register_game

log = structlog.get_logger()

GAMES = "swarm.games"
"""Group of the entry points; each names an object, or a class without arguments, that is a
`protocols.games.interface.Game`."""


@cache
def load_games() -> tuple[str, ...]:
    """Register every game that an installed package brings, the first time; return their names."""
    names = []
    for found in sorted(entry_points(group=GAMES), key=lambda each: each.name):
        try:
            brought = found.load()
            register_game(found.name, brought() if isinstance(brought, type) else brought)
        except Exception as error:  # noqa: BLE001 - a stranger's package: whatever it raises, the node runs without it
            log.warning("game.unusable", game=found.name, package=found.value, reason=describe(error))
        else:
            names.append(found.name)
    return tuple(names)
