"""What is compared: honest peers alone, beside hostile ones, and beside hostile ones that nobody checks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec
from msgspec.structs import replace

from protocols.games.share import Share
from protocols.identifiers import Address
from protocols.manifest import DataSpec, Manifest, StageSpec, VotingSpec

GOAL = 0.9
"""Accuracy beside hostile peers, as a share of the accuracy alone."""

STAGE_SECONDS = 3600
"""Chain seconds of a round: more than any machine needs, so that no result depends on the machine's speed."""


class HostileArm(msgspec.Struct, frozen=True, kw_only=True):
    """One swarm: its hostile peers by kind; whether bodies are `checked`, and whether the trainer believes only what is
    `filtered`."""

    name: str
    hostile: tuple[str, ...] = ()
    checked: bool = True
    filtered: bool = True


class HostileSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What all arms share. `questions` are held-out ones; each peer publishes `num_prompts` groups in a round."""

    honest: int = 7
    rounds: int = 16
    questions: int = 400
    num_prompts: int = 16


class HostileResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one arm with one seed.

    `before` and `after` are the held-out accuracies of the honest peers. `offered` and `used` count hostile bodies:
    those that an honest peer heard of, and those that it trained on. `refused` counts by reason those that did not pass
    an honest peer's check, `wronged` likewise the bodies of other honest peers. `votes` counts the honest peers' votes,
    `misled` those for hostile ones by kind, `skipped` stages that an honest peer did not play.
    """

    arm: str
    seed: int
    before: list[float]
    after: list[float]
    offered: int
    used: int
    refused: dict[str, int]
    wronged: dict[str, int]
    votes: int
    misled: dict[str, int]
    skipped: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """Mean of the honest peers at the end."""
        return fmean(self.after)


def arms_of(hostile: tuple[str, ...]) -> tuple[HostileArm, ...]:
    """Return the arms in the order of the table: the first is what the others are compared with, the second is the
    claim. The others do without one or both lines of defence: the last shows that the trial can fail."""
    return (
        HostileArm(name="alone"),
        HostileArm(name="with hostile", hostile=hostile),
        HostileArm(name="bodies unchecked", hostile=hostile, checked=False),
        HostileArm(name="unfiltered", hostile=hostile, checked=False, filtered=False),
    )


def manifest_of(terms: HostileSettings) -> Manifest:
    """Return the swarm that is played: the demo's `share` on the built-in questions, votes in one phase."""
    game = Share.builtin_model.spec
    return Manifest(
        name="hostile",
        data=DataSpec(held_out=terms.questions),
        game=replace(
            game, num_prompts=terms.num_prompts, local_groups=terms.num_prompts, external_groups=terms.num_prompts
        ),
        stages=(StageSpec(name="play", seconds=STAGE_SECONDS),),
        voting=VotingSpec(mode="open"),
        evaluate_every=terms.rounds,
    )


def address_of(number: int) -> Address:
    """Return the address of a peer, counted from 1."""
    return f"0x{number:040x}"


def ratio(results: Sequence[HostileResult], arm: HostileArm, first: HostileArm) -> float:
    """Return an arm's accuracy at the end as a share of the first's, each the mean over seeds."""

    def mean(name: str) -> float:
        return fmean(each.accuracy for each in results if each.arm == name)

    return mean(arm.name) / mean(first.name)
