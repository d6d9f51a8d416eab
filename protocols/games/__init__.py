"""The games that a swarm can play, by the name that its manifest gives.

`node.runtime.game_plugins` adds those that other packages bring (entry points of the group `swarm.games`).
"""

from __future__ import annotations

from msgspec.structs import replace

from protocols.games.debate import Debate
from protocols.games.interface import BuiltinModelSetup, Game, PlaysBuiltinModel, QuotedBodies, StageContext
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
    quotes = any(game.quotes(stage) for stage in range(len(game.stages)))
    return seed if quotes else b""


def body_author(game: Game, peer: Address) -> Address:
    """Return what stands as author in a body: the peer where its questions are everybody's, else nothing."""
    return peer if game.questions_are_common else ""


def game_names() -> tuple[str, ...]:
    """Return the names of all games, in order."""
    return tuple(sorted(_games))


def builtin_setup(name: str) -> BuiltinModelSetup | None:
    """Return how the built-in model plays a game, None if the game does not say. Raises ValueError as `game_named`."""
    game = game_named(name)
    if not isinstance(game, PlaysBuiltinModel):
        return None
    # A game that inherits from another one inherits the other's name with the setup.
    return replace(game.builtin_model, spec=replace(game.builtin_model.spec, name=name))


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


__all__ = [
    "BuiltinModelSetup", "Game", "QuotedBodies", "StageContext", "body_author", "body_seed", "builtin_setup",
    "game_named", "game_names", "game_problems", "register_game",
]  # fmt: skip
