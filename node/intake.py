"""The check of a body that a peer sent: every rule a pure function, the reward recomputed from this node's own data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, pairwise

from node.grading.registry import gave_up
from node.library import Library
from node.seams import Bodies, Questions, Verdict
from protocols.games import Game, Scene, Shelf, body_seed, game_named
from protocols.games.quoting import drawn
from protocols.identifiers import Address
from protocols.manifest import Manifest
from protocols.wire import Announcement, Completion, Group, Malformed, Rollouts, decode_rollouts

DEAR = 3
"""Completions of one body that may run into a bound of their grader."""


def body_checker(
    manifest: Manifest, questions: Questions, bodies: Bodies
) -> Callable[[Address, Announcement, bytes], Verdict]:
    """Return the check of this swarm, as `node.seams.CheckBody`; what is quoted is looked up in `bodies`."""
    library = Library(bodies)

    def check(peer: Address, said: Announcement, body: bytes) -> Verdict:
        return check_body(manifest, questions, peer, said, body, library)

    return check


def check_body(
    manifest: Manifest,
    questions: Questions,
    peer: Address,
    said: Announcement,
    body: bytes,
    library: Library | None = None,
) -> Verdict:
    """Accept or refuse a whole body; `reward` is the sum over its `groups` with a rank of the mean recomputed reward.

    Groups of the common slots are checked like all others and have no rank. A body that quotes what is not in the
    library is neither: "quotes-missing" names what is lacking. One whose completions make the grader give up more than
    `DEAR` times is refused: they are made to.
    """
    game = game_named(manifest.game.name)
    try:
        rollouts = decode_rollouts(body, said.body, min(manifest.limits.body, said.size))
    except Malformed as problem:
        return Verdict(reason=problem.code)
    reason = (
        frame_problem(manifest, game, said, rollouts)
        or assignment_problem(manifest, game, questions, peer, said, rollouts)
        or next(filter(None, (group_problem(manifest, group) for group in rollouts.groups)), "")
    )
    if reason:
        return Verdict(reason=reason)
    shelf, missing = library.shelf(rollouts.quoted) if library and rollouts.quoted else ({}, rollouts.quoted)
    if missing:
        return Verdict(reason="quotes-missing", missing=missing)
    if reason := quotes_problem(manifest, game, rollouts, shelf):
        return Verdict(reason=reason)
    ranked = [group for group in rollouts.groups if group.slot >= manifest.game.common]
    total, before = 0.0, gave_up()
    for group in ranked:
        total += mean_reward(manifest, game, questions, rollouts, group, shelf)
        if gave_up() - before > DEAR:
            return Verdict(reason="dear")
    return Verdict(reason="", groups=len(ranked), reward=total)


def frame_problem(manifest: Manifest, game: Game, said: Announcement, rollouts: Rollouts) -> str:
    """Return the reason why the body does not belong to its announcement, or an empty text."""
    if (rollouts.round, rollouts.stage) != (said.round, said.stage):
        return "round"
    if rollouts.seed != body_seed(game, said.seed):
        return "seed"
    if len(rollouts.tokenizer) != 32:
        return "schema"
    if not manifest.game.minimum <= len(rollouts.groups) <= manifest.game.generated:
        return "groups"
    stages = game.quotes(said.stage)
    least, most = len(stages), len(stages) * game.most_quoted(manifest.game)
    return "" if least <= len(rollouts.quoted) <= most else "quotes"


def assignment_problem(
    manifest: Manifest, game: Game, questions: Questions, peer: Address, said: Announcement, rollouts: Rollouts
) -> str:
    """Return "assignment" unless the slots ascend from 0 without a gap and hold the questions this peer was given.

    A gap would let a peer publish its lucky groups only.
    """
    slots = [group.slot for group in rollouts.groups]
    if slots[0] != 0 or any(after != before + 1 for before, after in pairwise(slots)):
        return "assignment"
    size, common = len(questions), manifest.game.common
    for group in rollouts.groups:
        given = game.question(questions.digest, said.seed, peer, said.stage, group.slot, size, common)
        if group.question != given:
            return "assignment"
    return ""


def quotes_problem(manifest: Manifest, game: Game, rollouts: Rollouts, shelf: Shelf) -> str:
    """Return "quotes" unless some of each stage that is to be quoted are named, in the order of their lots, and belong
    to the same round."""
    most = game.most_quoted(manifest.game)
    bodies = [(digest, shelf[digest]) for digest in rollouts.quoted]
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
    """Return the reason why a group can't count: incomplete, or a completion out of bounds."""
    if len(group.completions) != manifest.game.group_size:
        return "incomplete"
    return next(filter(None, (completion_problem(manifest, each) for each in group.completions)), "")


def completion_problem(manifest: Manifest, completion: Completion) -> str:
    """Return "length" where text, ids or log-probabilities are out of bounds or do not match."""
    count, rest = divmod(len(completion.tokens), 4)
    fits = not rest and 0 < count <= manifest.game.max_completion and len(completion.logps) in (0, 4 * count)
    return "" if fits and len(completion.text) <= manifest.limits.completion_chars else "length"


def scene_of(questions: Questions, rollouts: Rollouts, group: Group, shelf: Shelf) -> Scene:
    """Return where a group was played, with the question's text from this node's own data."""
    return Scene(
        seed=rollouts.seed,
        stage=rollouts.stage,
        slot=group.slot,
        question=questions[group.question].text,
        quoted=rollouts.quoted,
        shelf=shelf,
    )


def mean_reward(
    manifest: Manifest, game: Game, questions: Questions, rollouts: Rollouts, group: Group, shelf: Shelf
) -> float:
    """Return the mean over the group of rewards recomputed against this node's own reference answer."""
    scene, answer = scene_of(questions, rollouts, group, shelf), questions[group.question].answer
    own = game.rewards(manifest.game, scene, [each.text for each in group.completions], answer)
    return sum(own) / len(own)
