"""The swarm manifest: everything that all peers of one swarm agree on, and its digest, which the contract stores.

The digest is an argument of the deployment, so it must be known before the contract has an address. The section
`deployment` (chain and contract) is therefore part of the manifest's file, where a new node finds it, but not covered
by the digest. Nothing is lost: a node asks the contract at that address for the digest and refuses to play if it
differs, and everything that peers sign is bound to chain, address and deployment block by
`protocols.identifiers.swarm_id`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from protocols.identifiers import Digest, body_digest


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the swarm's contract is: EIP-155 chain id and address. Not covered by the digest."""

    chain: int
    contract: str


class DataSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the questions come from.

    `source` is "builtin:arithmetic", "hub:OWNER/NAME" (a Hugging Face data set at `revision`, of its `config`),
    "jsonl:PATH" or "parquet:PATH" (a file, or a directory in the hub's layout), "reasoning-gym:TASK" with the task's
    `parameters` (size and seed among them), or "SCHEME:ANYTHING" of an installed plug-in. A node may map any of them to
    its own copy. `question` and `answer` name columns; dots address nested ones, as in "reward_model.ground_truth". In
    a list of chat messages the user's last message is the question.

    `split` is trained on, `test` is held out. If the source has no split of that name, the questions whose CRC-32 is
    divisible by ten are held out. `digest` is the hex BLAKE2b-256 over the canonical records of the training split.
    Without it, peers with different copies notice only because they refuse each other's rollouts.
    """

    source: str = "builtin:arithmetic"
    revision: str = ""
    config: str = ""
    split: str = "train"
    test: str = "test"
    question: str = "question"
    answer: str = "answer"
    parameters: dict[str, int | float | str | bool] = {}
    digest: str = ""
    held_out: int = 400


class GameSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The game and its parameters. Counts are groups per peer and stage; lengths are tokens.

    `grader` is a name with its version, so that all peers compute equal rewards: "final-number/1", "last-number/1",
    "math/1" (`protocols.grading`), "latex/1", "reasoning-gym/1" (`node.grading`) or a plug-in's. `examples` are worked
    examples that precede every prompt; their tokens are computed once. The first `common` slots of a stage hold common
    questions, the same for every peer: they serve comparison and the copy test and do not count for the ranking.

    A stage's work: groups of `num_generations` completions are sampled for `num_prompts` questions and published, then
    `updates` GRPO updates are made, each on at most `local_groups` of this peer's groups and `external_groups` of other
    peers' (SAPO, arXiv 2509.08721). A body of fewer than `min_prompts` groups counts as none. `name` is "share",
    "debate", or a game from another package; `parameters` are that game's own (docs/games.md).
    """

    name: str = "share"
    grader: str = "final-number/1"
    examples: str = ""
    prompt: str = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    stop: str = "<|im_end|>"
    num_prompts: int = 16
    min_prompts: int = 2
    common: int = 0
    num_generations: int = 8
    local_groups: int = 16
    external_groups: int = 16
    updates: int = 1
    max_prompt: int = 256
    max_completion: int = 32
    temperature: float = 1.0
    parameters: dict[str, str | int | float | bool] = {}


class StageSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stage of a round and how long it lasts, in seconds of chain time.

    A stage that quotes earlier ones waits until everybody has delivered their rollouts, at most for the share `wait`
    of its time.
    """

    name: str
    seconds: int
    wait: float = 0.25


class VotingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How winners are chosen, at most `winners` per vote. A peer needs at least `minimum_groups` ranked groups to win.

    `ranking` "mean/1" is the mean of recomputed rewards over a peer's own questions, ties by address. A stage closes
    early once `quorum` percent of last round's voters have reported their rewards, but not before `earliest` seconds.
    If both are 0, stages never close early.
    """

    ranking: Literal["mean/1"] = "mean/1"
    mode: Literal["sealed", "open"] = "sealed"
    winners: int = 5
    minimum_groups: int = 2
    quorum: int = 0
    earliest: int = 0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits on what peers send each other; in bytes unless the name says otherwise."""

    announcement: int = 65_536
    inline: int = 8_192
    body: int = 4_194_304
    completion_chars: int = 16_384
    rounds_kept: int = 1
    turn_seconds: int = 3


class Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Checks on received rollouts that an organiser may switch off because of the data (docs/checks.md).

    `reference` "on" refuses bodies if most of their right completions are the reference solution, word for word. "auto"
    does so for data written by others ("hub:", "jsonl:", "parquet:"), but not where models are trained to imitate the
    reference ("builtin:") or answers are short ("reasoning-gym:", plug-ins). `poison` refuses bodies if most of their
    right completions are degenerate; switch it off if right answers are repetitive. `copies` compares the peers'
    answers to the same question.
    """

    reference: Literal["auto", "on", "off"] = "auto"
    poison: bool = True
    copies: bool = True


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole swarm. `stages` are played in order; a round is one pass over them.

    `model` is the recommended one. If `models` names any, a node must use one of them or `model`.
    """

    name: str
    deployment: Deployment | None = None
    model: str = "builtin"
    models: tuple[str, ...] = ()
    data: DataSpec = DataSpec()
    game: GameSpec = GameSpec()
    stages: tuple[StageSpec, ...] = (StageSpec(name="play", seconds=60),)
    voting: VotingSpec = VotingSpec()
    limits: Limits = Limits()
    checks: Checks = Checks()
    confirmations: int = 0
    evaluate_every: int = 5


def canonical_manifest(manifest: Manifest) -> bytes:
    """Return what the digest covers: sorted, compact JSON of every field but `deployment`. It parses back."""
    undeployed = msgspec.structs.replace(manifest, deployment=None)
    return msgspec.json.encode(undeployed, order="sorted")


def manifest_digest(manifest: Manifest) -> Digest:
    """Return the 32-byte digest of the manifest's canonical form, as stored in the contract."""
    return body_digest(canonical_manifest(manifest))


def refuses_references(manifest: Manifest) -> bool:
    """Return True if bodies that repeat the reference solutions are refused in this swarm."""
    kind, wanted = manifest.data.source.partition(":")[0], manifest.checks.reference
    return wanted == "on" or (wanted == "auto" and kind in ("hub", "jsonl", "parquet"))


def allows_model(manifest: Manifest, model: str) -> bool:
    """Return True if a node may use `model`: a name or path, of which the last part counts, or "" for the default."""
    allowed = {_last_part(name) for name in (*manifest.models, manifest.model)}
    return not model or not manifest.models or _last_part(model) in allowed


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()
