"""The games that a swarm can play, by the name that its manifest gives.

`node.runtime.game_plugins` adds those that other packages bring (entry points of the group `swarm.games`).
"""

from __future__ import annotations

from protocols.games.debate import Debate
from protocols.games.interface import Game, Shelf, StageContext
from protocols.games.share import Share
from protocols.identifiers import Address, Seed
from protocols.manifest import Manifest

_games: dict[str, Game] = {"share": Share(), "debate": Debate()}


def game_named(name: str) -> Game:
    """Return a game. Raises ValueError for a name that nobody has brought."""
    found = _games.get(name)
    if found is None:
        raise ValueError(f"no game is called {name!r}; there are {', '.join(sorted(_games))}")
    return found


def register_game(name: str, game: Game) -> None:
    """Add a game. Raises ValueError where the name is taken by another one."""
    if _games.setdefault(name, game) is not game:
        raise ValueError(f"two games are called {name!r}: rename or remove one of the packages")


def body_seed(game: Game, seed: Seed) -> Seed:
    """Return what stands as seed in a body: the round's where stages may quote each other, else nothing."""
    return seed if len(game.stages) > 1 else b""


def body_author(game: Game, peer: Address) -> Address:
    """Return what stands as author in a body: the peer where its questions are everybody's, else nothing."""
    return peer if len(game.stages) > 1 else ""


def game_problems(manifest: Manifest) -> list[str]:
    """Return every reason why a manifest's game can't be played as it stands there."""
    spec = manifest.game
    try:
        game = game_named(spec.name)
    except ValueError as error:
        return [f"game.name: {error}"]
    named = tuple(stage.name for stage in manifest.stages)
    stages = (
        ()
        if len(named) == len(game.stages)
        else (f"stages: {spec.name!r} has {len(game.stages)}, in this order: {', '.join(game.stages)}",)
    )
    return [*stages, *game.problems(spec)]


__all__ = ["Game", "Shelf", "StageContext", "body_author", "body_seed", "game_named", "game_problems", "register_game"]
