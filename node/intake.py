"""The check of a body that a peer sent: every rule a pure function, the reward recomputed from this node's own data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from node.grading.registry import gave_up
from node.seams import Questions, Verdict
from protocols.assignment import assignment
from protocols.games.share import rewards
from protocols.identifiers import Address
from protocols.manifest import Manifest
from protocols.wire import Announcement, Completion, Group, Malformed, Rollouts, decode_rollouts

DEAR = 3
"""Completions of one body that may run into a bound of their grader."""


def body_checker(manifest: Manifest, questions: Questions) -> Callable[[Address, Announcement, bytes], Verdict]:
    """Return the check of this swarm, as `node.seams.CheckBody`."""

    def check(peer: Address, said: Announcement, body: bytes) -> Verdict:
        return check_body(manifest, questions, peer, said, body)

    return check


def check_body(manifest: Manifest, questions: Questions, peer: Address, said: Announcement, body: bytes) -> Verdict:
    """Accept or refuse a whole body; `reward` is the sum over its `groups` with a rank of the mean recomputed reward.

    Groups of the common slots are checked like all others and have no rank. A body whose completions make the grader
    give up more than `DEAR` times is refused: they are made to.
    """
    try:
        rollouts = decode_rollouts(body, said.body, min(manifest.limits.body, said.size))
    except Malformed as problem:
        return Verdict(reason=problem.code)
    reason = (
        frame_problem(manifest, said, rollouts)
        or assignment_problem(manifest, questions, peer, said, rollouts)
        or next(filter(None, (group_problem(manifest, group) for group in rollouts.groups)), "")
    )
    if reason:
        return Verdict(reason=reason)
    ranked = [group for group in rollouts.groups if group.slot >= manifest.game.common]
    total, before = 0.0, gave_up()
    for group in ranked:
        total += mean_reward(manifest, questions, group)
        if gave_up() - before > DEAR:
            return Verdict(reason="dear")
    return Verdict(reason="", groups=len(ranked), reward=total)


def frame_problem(manifest: Manifest, said: Announcement, rollouts: Rollouts) -> str:
    """Return the reason why the body does not belong to its announcement, or an empty text."""
    if (rollouts.round, rollouts.stage) != (said.round, said.stage):
        return "round"
    if len(rollouts.tokenizer) != 32:
        return "schema"
    if not manifest.game.minimum <= len(rollouts.groups) <= manifest.game.generated:
        return "groups"
    return ""


def assignment_problem(
    manifest: Manifest, questions: Questions, peer: Address, said: Announcement, rollouts: Rollouts
) -> str:
    """Return "assignment" unless the slots ascend from 0 without a gap and hold the questions this peer was given.

    A gap would let a peer publish its lucky groups only.
    """
    slots = [group.slot for group in rollouts.groups]
    if slots[0] != 0 or any(after != before + 1 for before, after in pairwise(slots)):
        return "assignment"
    given = assignment(questions.digest, said.seed, peer, said.stage, len(slots), len(questions), manifest.game.common)
    return "" if given == tuple(group.question for group in rollouts.groups) else "assignment"


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


def mean_reward(manifest: Manifest, questions: Questions, group: Group) -> float:
    """Return the mean over the group of rewards recomputed against this node's own reference answer."""
    own = rewards(manifest.game, [each.text for each in group.completions], questions[group.question].answer)
    return sum(own) / len(own)
