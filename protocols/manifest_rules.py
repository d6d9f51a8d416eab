"""Validation of manifests: rules that types can't express, and the game's own rules."""

from __future__ import annotations

import re

import msgspec

from protocols.games import game_problems
from protocols.manifest import Deployment, Manifest

_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")
_GRADER = re.compile(r"[a-z0-9][a-z0-9.-]*/[1-9][0-9]*")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def parse_manifest(toml: bytes) -> Manifest:
    """Read a manifest from TOML. Raises ValueError: `msgspec.ValidationError` naming the field, or a TOML error."""
    manifest: Manifest = msgspec.toml.decode(toml, type=Manifest)
    for problem in (*manifest_problems(manifest), *game_problems(manifest)):
        raise msgspec.ValidationError(problem)
    return manifest


def manifest_problems(manifest: Manifest) -> list[str]:
    """Return every reason why a well-typed manifest is invalid; empty if it is valid."""
    game, data = manifest.game, manifest.data
    rules = [
        (bool(manifest.stages), "stages: a round needs at least one stage"),
        (all(stage.seconds > 0 for stage in manifest.stages), "stages: each lasts at least one second"),
        (all(0 <= stage.wait <= 0.9 for stage in manifest.stages), "stages.wait: a share of 0 to 0.9"),
        (all(data.source.partition(":")), f"data.source: {data.source!r} is not of the form SCHEME:NAME"),
        (bool(data.revision) or not data.source.startswith("hub:"), "data.revision: a hub data set needs its commit"),
        (bool(_DIGEST.fullmatch(data.digest)), "data.digest: 64 lower-case hex digits, or empty"),
        (data.split not in ("", data.test), "data.split: needs a name that differs from data.test"),
        (data.held_out > 0, "data.held_out: at least 1"),
        (bool(_GRADER.fullmatch(game.grader)), f"game.grader: {game.grader!r} is not of the form NAME/VERSION"),
        ("{question}" in game.prompt, "game.prompt: needs the placeholder {question}"),
        (2 <= game.num_generations <= 64, "game.num_generations: 2 to 64 completions make a group"),
        (
            0 < game.min_prompts <= game.num_prompts <= 1024,
            "game.min_prompts: at least 1, at most game.num_prompts (<= 1024)",
        ),
        (
            0 <= game.common < game.min_prompts,
            "game.common: at least 0, below game.min_prompts, so that every body is ranked",
        ),
        (
            game.local_groups >= 0 and game.external_groups >= 0 and game.local_groups + game.external_groups > 0,
            "game.local_groups: nothing to train on",
        ),
        (1 <= manifest.voting.winners <= 16, "voting.winners: 1 to 16"),
        (0 <= manifest.voting.quorum <= 100, "voting.quorum: 0 to 100 percent"),
        ((manifest.voting.quorum == 0) == (manifest.voting.earliest == 0), "voting.earliest: set it with a quorum"),
        (manifest.limits.inline < manifest.limits.announcement, "limits.inline: must be below limits.announcement"),
        (_is_place(manifest.deployment), "deployment: a chain id above 0 and an address of 0x and 40 hex digits"),
    ]
    return [text for holds, text in rules if not holds]


def _is_place(deployment: Deployment | None) -> bool:
    return deployment is None or (deployment.chain > 0 and bool(_ADDRESS.fullmatch(deployment.contract)))
