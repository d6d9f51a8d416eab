"""A game in its own package: like `share`, but a right answer is worth less the longer it is.

A manifest plays it with `[game] name = "concise"` and, optionally, `[game.parameters] length = 80`. Every peer of the
swarm must have installed the same version: rewards are recomputed by each.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocols.games import StageContext
from protocols.games.share import Share
from protocols.manifest import GameSpec

LENGTH = 120


class Concise(Share):
    """Half of a right answer's reward is for brevity: full for an empty text, zero from `length` characters on."""

    def problems(self, spec: GameSpec) -> list[str]:
        """Return what is wrong with the parameters."""
        unknown = [f"game.parameters: concise has no {name!r}" for name in spec.parameters if name != "length"]
        length = spec.parameters.get("length", LENGTH)
        fits = isinstance(length, int) and length > 0
        return unknown + ([] if fits else ["game.parameters.length: a number of characters above 0"])

    def rewards(
        self, spec: GameSpec, context: StageContext, completions: Sequence[str], answer: str
    ) -> tuple[float, ...]:
        """Return the rewards; each peer recomputes them from what was published."""
        length = int(spec.parameters.get("length", LENGTH))
        right = super().rewards(spec, context, completions, answer)
        brevity = [1.0 - min(1.0, len(text) / length) for text in completions]
        return tuple(grade * (0.5 + 0.5 * short) for grade, short in zip(right, brevity, strict=True))
