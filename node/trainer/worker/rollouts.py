"""Converts between what is sent (`protocols.wire`) and what is sampled or trained on."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from msgspec.structs import replace

from node.data.questions import Questions
from node.trainer.engines.engine import Engine, TrainingGroup
from node.trainer.engines.sampler import Sample
from node.trainer.learning.grpo import Objective, advantages
from node.validation.body_check import stage_context
from protocols.games import QuotedBodies, StageContext, game_named
from protocols.games.quoting import MAX_QUOTE_CHARS
from protocols.games.share import has_advantage, one_each
from protocols.identifiers import Digest, body_digest
from protocols.manifest import GameSpec, Limits
from protocols.poison import flaw
from protocols.wire import Completion, Group, Rollouts, decode_rollouts

ItemT = TypeVar("ItemT")

NO_BODIES: QuotedBodies = {}


def completion_of(sample: Sample, limits: Limits) -> Completion:
    """Return a sample as it travels; a text above the limit is cut, which costs it its ids at the receiver."""
    count = len(sample.tokens)
    return Completion(
        text=sample.text[: limits.completion_chars],
        tokens=struct.pack(f"<{count}I", *sample.tokens),
        logps=struct.pack(f"<{count}f", *sample.logps),
        finished=sample.finished,
    )


def read_body(body: bytes) -> Rollouts | None:
    """Return the rollouts of a body that the node has checked; None for the empty body."""
    return decode_rollouts(body, body_digest(body), len(body)) if body else None


def decode_bodies(bodies: Sequence[bytes]) -> QuotedBodies:
    """Return decoded bodies by digest."""
    return {body_digest(body): decode_rollouts(body, body_digest(body), len(body)) for body in bodies}


def has_its_quotes(rollouts: Rollouts, quoted_bodies: QuotedBodies) -> bool:
    """Return True if everything that a body quotes, and what that quotes in turn, is among the quoted bodies."""
    return all(
        digest in quoted_bodies and has_its_quotes(quoted_bodies[digest], quoted_bodies) for digest in rollouts.quoted
    )


def fitted_prompt(game: GameSpec, context: StageContext, engine: Engine) -> str:
    """Return a stage's prompt with the longest quotes, cut in the middle, that leave space for the whole question."""
    prompt = game_named(game.name).prompt
    text = prompt(game, context, MAX_QUOTE_CHARS)
    if not context.quoted or len(engine.encode(text)) <= game.max_prompt:
        return text
    longest = max(len(each.text) for body in context.quoted_bodies.values() for each in _completions(body))
    fits, too_long = 0, longest + 1
    while too_long - fits > 1:
        max_chars = (fits + too_long) // 2
        if len(engine.encode(prompt(game, context, max_chars))) <= game.max_prompt:
            fits = max_chars
        else:
            too_long = max_chars
    return prompt(game, context, fits)


def _completions(body: Rollouts) -> Iterator[Completion]:
    return (each for group in body.groups for each in group.completions)


def training_groups(
    rollouts: Rollouts,
    questions: Questions,
    game: GameSpec,
    engine: Engine,
    objective: Objective,
    *,
    external: bool,
    quoted_bodies: QuotedBodies = NO_BODIES,
    body: Digest = b"",
) -> list[TrainingGroup]:
    """Return a body's groups with advantages from recomputed rewards; groups without text are left out.

    Of another peer's groups the first of each question counts, unless it praises a degenerate completion. A body whose
    quotes are not all among the quoted bodies has none.
    Completions that were cut off count for the group's advantages also where the objective masks them.
    """
    if not has_its_quotes(rollouts, quoted_bodies):
        return []
    groups = (
        _training_group(group, rollouts, questions, game, engine, objective, external, quoted_bodies)
        for group in (one_each(rollouts.groups) if external else rollouts.groups)
        if 0 <= group.question < len(questions)
    )
    return [replace(group, body=body) for group in groups if group is not None]


def reinforces_poison(completions: Sequence[Completion], values: Sequence[float]) -> bool:
    """Return True if a degenerate completion would be made likelier.

    Degenerate completions that are made less likely do no harm: without them the groups of a model that has just begun
    to train would teach nobody.
    """
    return any(value > 0 and flaw(each) for each, value in zip(completions, values, strict=True))


def most_external(game: GameSpec, own: int) -> int:
    """Return how many external groups an update may take beside `own` own ones: no larger share than the manifest's,
    even if there are few own ones.

    Own groups without an advantage count. What keeps them from teaching is no fault of the others, and from those a
    model learns what it can't do yet (SAPO, arXiv 2509.08721).
    """
    return (
        min(game.external_groups, own * game.external_groups // game.local_groups)
        if game.local_groups
        else game.external_groups
    )


def _training_group(
    group: Group,
    rollouts: Rollouts,
    questions: Questions,
    game: GameSpec,
    engine: Engine,
    objective: Objective,
    external: bool,
    quoted_bodies: QuotedBodies,
) -> TrainingGroup | None:
    context, answer = stage_context(questions, rollouts, group, quoted_bodies), questions[group.question].answer
    same_ids = rollouts.tokenizer == engine.fingerprint
    read = [read_completion(each, engine, game, same_ids=same_ids) for each in group.completions]
    graded = game_named(game.name).rewards(game, context, [each.text for each in group.completions], answer)
    values = advantages(graded, scaled=not objective.longest) if has_advantage(graded) else [0.0] * len(graded)
    if external and reinforces_poison(group.completions, values):
        return None
    kept = [
        (ids, logps, value)
        for (ids, logps), value, each in zip(read, values, group.completions, strict=True)
        if ids and (each.finished or not objective.mask_truncated)
    ]
    if not kept:
        return None
    ids, logps, values = (list(column) for column in zip(*kept, strict=True))
    return TrainingGroup(
        prompt=engine.encode(fitted_prompt(game, context, engine)),
        completions=ids,
        behaviour=logps,
        advantages=values,
        external=external,
    )


def read_completion(
    completion: Completion, engine: Engine, game: GameSpec, *, same_ids: bool
) -> tuple[list[int], list[float]]:
    """Return ids and behaviour log-probabilities to train on.

    Ids that came along are used only where the tokenizer is the same and they decode to the text, log-probabilities
    only with them and if each is finite and at most 0. Otherwise the text is tokenised again and its importance
    weight is 1; what is longer than the game allows is cut.
    """
    if same_ids:
        ids = list(struct.unpack(f"<{len(completion.tokens) // 4}I", completion.tokens))
        if decodes_to(ids, completion.text, engine):
            return ids, usable(completion.logps, len(ids))
    return engine.completion_ids(completion.text, completion.finished)[: game.max_completion], []


def decodes_to(ids: list[int], text: str, engine: Engine) -> bool:
    """Return True if these ids are that text."""
    try:
        return bool(ids) and engine.decode(ids) == text
    except ValueError:
        return False


def usable(packed: bytes, count: int) -> list[float]:
    """Return `count` log-probabilities packed as little-endian float32, or none where one can't be one."""
    if len(packed) != 4 * count:
        return []
    values = list(struct.unpack(f"<{count}f", packed))
    return values if all(math.isfinite(value) and value <= 0 for value in values) else []


class ShuffledPool(Generic[ItemT]):
    """Draws items in random order without replacement: all are drawn before one is drawn again, none twice at once."""

    def __init__(self, items: Sequence[ItemT], rng: random.Random) -> None:
        self._items, self._rng = list(items), rng
        self._left: list[int] = []

    def draw(self, count: int) -> list[ItemT]:
        """Return `count` items, all of them where there are fewer."""
        count = min(count, len(self._items))
        drawn, self._left = self._left[:count], self._left[count:]
        if len(drawn) < count:
            fresh = [each for each in range(len(self._items)) if each not in drawn]
            self._rng.shuffle(fresh)
            missing = count - len(drawn)
            self._left = fresh[missing:] + drawn
            drawn = drawn + fresh[:missing]
        return [self._items[each] for each in drawn]
