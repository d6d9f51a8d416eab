"""The check of a body that a peer sent: every rule is a pure function; rewards are recomputed from this node's own
data.

Reason codes are those of `protocols.reasons`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import TypeAlias

import msgspec

from node.data.questions import Questions
from node.grading.registry import gave_up
from node.ports.bodies import Bodies, Verdict
from node.validation.copy_detector import NGRAMS_COMPARED, CopyDetector
from node.validation.quoted_bodies import QuoteResolver
from protocols.assignment import EVERYBODY
from protocols.copies import Written, ngrams, written
from protocols.games import Game, QuotedBodies, StageContext, body_author, body_seed, game_named
from protocols.games.quoting import drawn
from protocols.identifiers import Address
from protocols.likeness import SAMPLED, is_recital, nearness
from protocols.logps import are_certain, are_possible
from protocols.manifest import Manifest, refuses_references
from protocols.poison import LONGEST_TOKEN, RIGHT, fits, is_poison
from protocols.wire import Announcement, Completion, Group, Malformed, Rollouts, decode_rollouts

MOST_GIVEN_UP = 3
"""Completions of one body that may exceed a limit of their grader."""

Right: TypeAlias = tuple[int, list[Completion]]
"""A question and the group's right completions."""


class BodyCheck:
    """The check of this swarm, as `CheckBody`. Quoted bodies are looked up in `bodies`, and each body is
    compared with those that passed earlier."""

    def __init__(self, manifest: Manifest, questions: Questions, bodies: Bodies) -> None:
        self._manifest, self._questions = manifest, questions
        self._quotes, self._copies = QuoteResolver(bodies), CopyDetector()

    def __call__(self, peer: Address, announcement: Announcement, body: bytes) -> Verdict:
        """Check a body that a peer sent."""
        return check_body(self._manifest, self._questions, peer, announcement, body, self._quotes, self._copies)

    def remember(self, peer: Address, announcement: Announcement, body: bytes) -> None:
        """Remember this node's own body for the comparison with others'; it needs no check."""
        game = game_named(self._manifest.game.name)
        rollouts = decode_rollouts(body, announcement.body, len(body))
        self._copies.alike(
            peer, announcement, comparable(self._manifest, game, self._questions, announcement, rollouts)
        )


def check_body(
    manifest: Manifest,
    questions: Questions,
    peer: Address,
    announcement: Announcement,
    body: bytes,
    library: QuoteResolver | None = None,
    comparison: CopyDetector | None = None,
) -> Verdict:
    """Accept or refuse a whole body; `reward` sums the mean recomputed rewards of its ranked groups, counted in
    `groups`.

    Groups of common questions are checked like all others and are not ranked. If a quoted body is missing, the reason
    is "quotes-missing" and `missing` names the digests. If more than `MOST_GIVEN_UP` completions exceed a limit of the
    grader, the body is refused: they are made to. An accepted body may have a `doubt`, or repeat others' (`alike`).
    """
    game = game_named(manifest.game.name)
    if len(body) != announcement.size:
        return Verdict(reason="size")
    try:
        rollouts = decode_rollouts(body, announcement.body, manifest.limits.body)
    except Malformed as problem:
        return Verdict(reason=problem.code)
    reason = (
        frame_problem(manifest, game, announcement, rollouts)
        or assignment_problem(manifest, game, questions, peer, announcement, rollouts)
        or next(filter(None, (group_problem(manifest, group) for group in rollouts.groups)), "")
    )
    if reason:
        return Verdict(reason=reason)
    quoted_bodies, missing = library.resolve(rollouts.quoted) if library and rollouts.quoted else ({}, rollouts.quoted)
    if missing:
        return Verdict(reason="quotes-missing", missing=missing)
    if reason := quotes_problem(manifest, game, rollouts, quoted_bodies):
        return Verdict(reason=reason)
    found = _worth(manifest, game, questions, rollouts, quoted_bodies)
    if found.reason or comparison is None:
        return found
    alike = comparison.alike(peer, announcement, comparable(manifest, game, questions, announcement, rollouts))
    return msgspec.structs.replace(found, alike=alike)


def _worth(
    manifest: Manifest, game: Game, questions: Questions, rollouts: Rollouts, quoted_bodies: QuotedBodies
) -> Verdict:
    """Recompute the rewards; refuse bodies that exhaust the grader, poison, and recited solutions."""
    ranked = [group for group in rollouts.groups if group.slot >= manifest.game.common]
    right: list[Right] = []
    total, before = 0.0, gave_up()
    for group in ranked:
        rewards = own_rewards(manifest, game, questions, rollouts, group, quoted_bodies)
        total += sum(rewards) / len(rewards)
        right.append((group.question, [group.completions[at] for at, each in enumerate(rewards) if each >= RIGHT]))
        if gave_up() - before > MOST_GIVEN_UP:
            return Verdict(reason="grader-limit")
    reason = poison_problem(manifest, right) or reference_problem(manifest, questions, right)
    if reason:
        return Verdict(reason=reason)
    certain = are_certain(each for group in rollouts.groups for each in group.completions)
    return Verdict(reason="", groups=len(ranked), reward=total, doubt="certain" if certain else "")


def frame_problem(manifest: Manifest, game: Game, announcement: Announcement, rollouts: Rollouts) -> str:
    """Return the reason why a body does not match its announcement, "" if it does."""
    if (rollouts.round, rollouts.stage) != (announcement.round, announcement.stage):
        return "round"
    if rollouts.seed != body_seed(game, announcement.seed):
        return "seed"
    if len(rollouts.tokenizer) != 32:
        return "schema"
    if not manifest.game.min_prompts <= len(rollouts.groups) <= manifest.game.num_prompts:
        return "groups"
    stages = game.quotes(announcement.stage)
    least, most = len(stages), len(stages) * game.max_quoted(manifest.game)
    return "" if least <= len(rollouts.quoted) <= most else "quotes"


def assignment_problem(
    manifest: Manifest, game: Game, questions: Questions, peer: Address, announcement: Announcement, rollouts: Rollouts
) -> str:
    """Return "assignment" unless the body is this peer's and its slots ascend from 0 without a gap and hold the
    assigned questions.

    A gap would let a peer publish only its lucky groups.
    """
    if rollouts.author != body_author(game, peer):
        return "assignment"
    slots = [group.slot for group in rollouts.groups]
    if slots[0] != 0 or any(after != before + 1 for before, after in pairwise(slots)):
        return "assignment"
    size, common = len(questions), manifest.game.common
    for group in rollouts.groups:
        given = game.question(questions.digest, announcement.seed, peer, announcement.stage, group.slot, size, common)
        if group.question != given:
            return "assignment"
    return ""


def quotes_problem(manifest: Manifest, game: Game, rollouts: Rollouts, quoted_bodies: QuotedBodies) -> str:
    """Return "quotes" unless the body quotes some bodies of each stage that it has to quote, in the order of the draw
    and from its own round."""
    most = game.max_quoted(manifest.game)
    bodies = [(digest, quoted_bodies[digest]) for digest in rollouts.quoted]
    if any((body.round, body.seed) != (rollouts.round, rollouts.seed) for _, body in bodies):
        return "quotes"
    stages = []
    for stage, quoted in groupby(bodies, key=lambda each: each[1].stage):
        digests = tuple(digest for digest, _ in quoted)
        if digests != drawn(rollouts.seed, stage, digests, most):
            return "quotes"
        stages.append(stage)
    return "" if tuple(stages) == game.quotes(rollouts.stage) else "quotes"


def group_problem(manifest: Manifest, group: Group) -> str:
    """Return the reason why a group is invalid, "" if it is valid: incomplete, or a completion out of bounds."""
    if len(group.completions) != manifest.game.num_generations:
        return "incomplete"
    return next(filter(None, (completion_problem(manifest, each) for each in group.completions)), "")


def completion_problem(manifest: Manifest, completion: Completion) -> str:
    """Return "length" if text, ids or log-probabilities are out of bounds or do not match, "logps" if a
    log-probability is impossible, else ""."""
    count, rest = divmod(len(completion.tokens), 4)
    whole = not rest and 0 < count <= manifest.game.max_completion and len(completion.logps) in (0, 4 * count)
    if not whole or len(completion.text) > manifest.limits.completion_chars or not fits(completion, LONGEST_TOKEN):
        return "length"
    return "" if are_possible(completion.logps) else "logps"


def poison_problem(manifest: Manifest, right: Sequence[Right]) -> str:
    """Return "poison" if most right completions are degenerate, else ""."""
    every = [completion for _, completions in right for completion in completions]
    return "poison" if manifest.checks.poison and is_poison(every) else ""


def reference_problem(manifest: Manifest, questions: Questions, right: Sequence[Right]) -> str:
    """Return "reference" if most right completions recite the reference solution (where it is long enough to judge),
    else ""."""
    if not refuses_references(manifest):
        return ""
    found = [
        near
        for question, completions in right
        for completion in completions[:SAMPLED]
        if (near := nearness(completion.text, questions[question].answer)) is not None
    ]
    return "reference" if is_recital(found) else ""


def comparable(
    manifest: Manifest, game: Game, questions: Questions, announcement: Announcement, rollouts: Rollouts
) -> dict[int, Written]:
    """Return the sketches of a body's common questions, by question; these can be compared between peers. Stops after
    `NGRAMS_COMPARED` n-grams: a few long texts prove as much as many short ones."""
    if not manifest.checks.copies:
        return {}
    size, common = len(questions), manifest.game.common
    found: dict[int, Written] = {}
    for group in rollouts.groups:
        given = game.question(
            questions.digest, announcement.seed, EVERYBODY, announcement.stage, group.slot, size, common
        )
        if group.question == given and ngrams(found) < NGRAMS_COMPARED:
            found[given] = written(each.text for each in group.completions)
    return found


def stage_context(questions: Questions, rollouts: Rollouts, group: Group, quoted_bodies: QuotedBodies) -> StageContext:
    """Return a group's context, with the question's text from this node's own data."""
    return StageContext(
        seed=rollouts.seed,
        stage=rollouts.stage,
        slot=group.slot,
        question=questions[group.question].text,
        quoted=rollouts.quoted,
        quoted_bodies=quoted_bodies,
    )


def own_rewards(
    manifest: Manifest, game: Game, questions: Questions, rollouts: Rollouts, group: Group, quoted_bodies: QuotedBodies
) -> tuple[float, ...]:
    """Return the group's rewards, recomputed against this node's own reference answer."""
    context, answer = stage_context(questions, rollouts, group, quoted_bodies), questions[group.question].answer
    return game.rewards(manifest.game, context, [each.text for each in group.completions], answer)
