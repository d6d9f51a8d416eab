"""The arms of the trial, and which groups a peer trains on: pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from protocols.games.share import sample_groups
from tools.training import Rollout


class SapoArm(msgspec.Struct, frozen=True, kw_only=True):
    """One way to compose an update: groups a peer generates in a round, and own and external ones it trains on."""

    name: str
    num_prompts: int
    local_groups: int
    external_groups: int


class SapoSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What all arms share. `questions` are held-out ones; the model is evaluated every `every` rounds."""

    peers: int = 8
    rounds: int = 60
    num_generations: int = 4
    rate: float = 3e-4
    questions: int = 240
    every: int = 20


def arms_of(peers: int) -> tuple[SapoArm, ...]:
    """Return the arms, in the order of the table.

    The second is the control: alone, but with the filter that sharing brings, over as many groups as a peer of the 4/4
    arm chooses from. It generates for that what the whole swarm does there, and says so by its tokens.
    """
    return (
        SapoArm(name="8/0", num_prompts=8, local_groups=8, external_groups=0),
        SapoArm(name="8/0 filtered", num_prompts=4 * peers, local_groups=8, external_groups=0),
        SapoArm(name="6/2", num_prompts=6, local_groups=6, external_groups=2),
        SapoArm(name="4/4", num_prompts=4, local_groups=4, external_groups=4),
        SapoArm(name="2/6", num_prompts=2, local_groups=2, external_groups=6),
    )


def chosen(
    arm: SapoArm, mine: Sequence[Rollout], others: Sequence[Rollout], rng: random.Random
) -> tuple[list[Rollout], list[Rollout]]:
    """Return own and external groups of one update, by the rules of the game `share`.

    External groups are drawn uniformly from those that have an advantage. Own ones are all taken; where there are more
    than the arm trains on, they are drawn like external ones.
    """
    own = list(mine)
    if len(own) > arm.local_groups:
        own = sample_groups([each for each in mine if each.informative], arm.local_groups, rng)
    return own, sample_groups([each for each in others if each.informative], arm.external_groups, rng)


class SapoResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one arm with one seed.

    `rewards[r]` is the mean reward of all own rollouts of round r, summed over peers; `accuracies` holds (round, mean
    held-out accuracy over peers); `tokens` counts what all peers generated.
    """

    arm: str
    seed: int
    rewards: list[float]
    accuracies: list[tuple[int, float]]
    tokens: int
    own_used: int
    external_used: int
    seconds: float

    @property
    def cumulative(self) -> float:
        """The paper's measure: rewards summed over rounds and peers."""
        return sum(self.rewards)
