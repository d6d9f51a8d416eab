"""Grades a body again, from this node's own data, with the functions that check arriving bodies."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from node.data.questions import Questions
from node.explain.round_facts import StageFact
from node.machine.round_report import RoundReport
from node.ports.bodies import Verdict
from node.validation.body_check import check_body, own_rewards
from node.validation.quoted_bodies import BodyLookup, QuoteResolver
from protocols.games import game_named
from protocols.identifiers import Address
from protocols.manifest import Manifest
from protocols.reasons import meaning_of
from protocols.wire import PROTOCOL_VERSION, Announcement, Rollouts, decode_rollouts

SAME = 1e-6
"""Sums of rewards that differ by less are equal."""


class RegradedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group and the rewards of its completions; `ranked` is False for a common question."""

    slot: int
    question: int
    rewards: tuple[float, ...]
    mean: float
    ranked: bool


class Regraded(msgspec.Struct, frozen=True, kw_only=True):
    """The result of grading a stage's body again. Without groups, `note` says why; it is empty if there was no body."""

    stage: str
    note: str = ""
    groups: tuple[RegradedGroup, ...] = ()


def regrade(
    manifest: Manifest,
    questions: Questions,
    bodies: BodyLookup,
    report: RoundReport,
    peer: Address,
    stages: Sequence[StageFact],
) -> tuple[Regraded, ...]:
    """Return each stage of a peer, graded now. For a body that is no longer in `bodies` there is a note instead."""
    return tuple(
        _regrade(manifest, questions, bodies, report, peer, number, stage) for number, stage in enumerate(stages)
    )


def _regrade(
    manifest: Manifest,
    questions: Questions,
    bodies: BodyLookup,
    report: RoundReport,
    peer: Address,
    number: int,
    kept: StageFact,
) -> Regraded:
    if not kept.size:
        return Regraded(stage=kept.stage)
    digest = bytes.fromhex(kept.digest)
    body = bodies.get(digest)
    if body is None:
        return Regraded(stage=kept.stage, note="can't be graded again: the body is not in this node's cache")
    said = Announcement(
        PROTOCOL_VERSION, bytes(32), report.round, number, report.seed, digest, kept.size, b""
    )  # fmt: skip
    library = QuoteResolver(bodies)
    verdict = check_body(manifest, questions, peer, said, body, library)
    if verdict.reason:
        return Regraded(
            stage=kept.stage, note=f"graded again: refused ({verdict.reason}). {meaning_of(verdict.reason)}"
        )
    mean = verdict.reward / max(1, verdict.groups)
    note = f"graded again: {verdict.groups} groups, mean {mean:.3f}, {_compared(kept, verdict)}"
    groups = _groups(manifest, questions, decode_rollouts(body, digest, kept.size), library)
    return Regraded(stage=kept.stage, note=note, groups=groups)


def _compared(kept: StageFact, verdict: Verdict) -> str:
    """Compare a body that passes now with the earlier result: the machine refuses some that pass the check, as
    copies."""
    if kept.outcome != "accepted":
        return "on its own it passes"
    same = verdict.groups == kept.groups and abs(verdict.reward - kept.mean * kept.groups) < SAME
    return "as then" if same else "NOT as then"


def _groups(
    manifest: Manifest, questions: Questions, rollouts: Rollouts, library: QuoteResolver
) -> tuple[RegradedGroup, ...]:
    game = game_named(manifest.game.name)
    quoted_bodies, _ = library.resolve(rollouts.quoted) if rollouts.quoted else ({}, ())
    found = []
    for group in rollouts.groups:
        rewards = own_rewards(manifest, game, questions, rollouts, group, quoted_bodies)
        found.append(
            RegradedGroup(
                slot=group.slot,
                question=group.question,
                rewards=rewards,
                mean=sum(rewards) / len(rewards),
                ranked=group.slot >= manifest.game.common,
            )
        )
    return tuple(found)
