"""The swarm manifest: everything that all peers of one swarm agree on, and its digest that stands in the contract."""

from __future__ import annotations

from typing import Literal

import msgspec

from protocols.identifiers import Digest, body_digest


class DataSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the questions come from.

    `source` is "builtin:arithmetic" or "jsonl:PATH" (a node may map it to its own copy); `digest` is the hex
    BLAKE2b-256 over the canonical records of the training split, empty only for built-in data.
    """

    source: str = "builtin:arithmetic"
    question: str = "question"
    answer: str = "answer"
    digest: str = ""
    held_out: int = 400


class GameSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The game and its parameters. Counts are groups per peer and stage; lengths are tokens.

    A stage's work: `generated` groups of `group_size` completions are sampled and published, then `updates` GRPO
    steps are made, each on at most `own` own and `external` foreign groups (SAPO, arXiv 2509.08721). `name` is "share",
    "debate", or a game that another package brings; `parameters` are that game's own (docs/games.md).
    """

    name: str = "share"
    grader: Literal["final-number", "last-number"] = "final-number"
    examples: str = ""
    prompt: str = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    stop: str = "<|im_end|>"
    generated: int = 16
    minimum: int = 2
    group_size: int = 8
    own: int = 16
    external: int = 16
    updates: int = 1
    max_prompt: int = 256
    max_completion: int = 32
    temperature: float = 1.0
    parameters: dict[str, str | int | float | bool] = {}


class StageSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stage of a round and how long it lasts, in seconds of chain time.

    A stage that quotes earlier ones waits for their rollouts until everybody is in, at most for the share `wait` of its
    time.
    """

    name: str
    seconds: int
    wait: float = 0.25


class VotingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How winners are chosen: at most `winners` per vote, peers with fewer than `minimum_groups` groups can't win."""

    mode: Literal["sealed", "open"] = "sealed"
    winners: int = 5
    minimum_groups: int = 2


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds on what peers send each other; bytes unless named otherwise."""

    announcement: int = 65_536
    inline: int = 8_192
    body: int = 4_194_304
    completion_chars: int = 16_384
    rounds_kept: int = 1
    turn_seconds: int = 3


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole swarm. `stages` are played in order; a round is one pass over them."""

    name: str
    model: str = "builtin"
    data: DataSpec = DataSpec()
    game: GameSpec = GameSpec()
    stages: tuple[StageSpec, ...] = (StageSpec(name="play", seconds=60),)
    voting: VotingSpec = VotingSpec()
    limits: Limits = Limits()
    confirmations: int = 0
    evaluate_every: int = 5


def manifest_digest(manifest: Manifest) -> Digest:
    """Return the 32-byte digest of the manifest's canonical form (sorted, compact JSON of every field)."""
    return body_digest(msgspec.json.encode(manifest, order="sorted"))


def parse_manifest(toml: bytes) -> Manifest:
    """Read a manifest from TOML. Raises `msgspec.ValidationError` or `msgspec.DecodeError` naming the field."""
    manifest: Manifest = msgspec.toml.decode(toml, type=Manifest)
    from protocols.games import game_problems  # here, because games are written in terms of the manifest

    for problem in (*manifest_problems(manifest), *game_problems(manifest)):
        raise msgspec.ValidationError(problem)
    return manifest


def manifest_problems(manifest: Manifest) -> list[str]:
    """Return every reason why a well-typed manifest still makes no sense; empty when it does."""
    game = manifest.game
    rules = [
        (bool(manifest.stages), "stages: a round needs at least one stage"),
        (all(stage.seconds > 0 for stage in manifest.stages), "stages: each lasts at least one second"),
        (all(0 <= stage.wait <= 0.9 for stage in manifest.stages), "stages.wait: a share of 0 to 0.9"),
        ("{question}" in game.prompt, "game.prompt: needs the place-holder {question}"),
        (2 <= game.group_size <= 64, "game.group_size: 2 to 64 completions make a group"),
        (0 < game.minimum <= game.generated <= 1024, "game.minimum: at least 1, at most game.generated (<= 1024)"),
        (game.own >= 0 and game.external >= 0 and game.own + game.external > 0, "game.own: nothing to train on"),
        (1 <= manifest.voting.winners <= 16, "voting.winners: 1 to 16"),
        (manifest.limits.inline < manifest.limits.announcement, "limits.inline: must be below limits.announcement"),
    ]
    return [text for holds, text in rules if not holds]
