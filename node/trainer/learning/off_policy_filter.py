"""Which groups of other peers can be what their senders say: asked of this node's own model before it learns from them.

Rewards are recomputed, so that nobody gains by claiming them. What is left to a liar is how likely his text was. Two
things give him away:

    gain       log pi / mu of a whole completion. Where mu sampled it, pi / mu has mean 1, so that by Markov's
               inequality an honest one gains more than 7 nats less than once in a thousand times, whatever both
               policies are. Who claims a low mu, to weigh more, does.
    surprise   -log pi per token. Right answers that this model would hardly write teach it to ramble where mu is kept
               back; where mu is true their weight is small, and what they leave is the push away from the wrong ones.

A group counts as a whole or not at all: its advantages are relative to each other. Which bodies are made of such
groups the machine learns, so that they earn neither rank nor credit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeAlias

import torch

from node.trainer.engines.engine import Engine, TrainingGroup
from node.trainer.learning.grpo import MicroBatchLimit, micro_batches
from protocols.identifiers import Digest

MOST_GAIN = 7.0
"""Nats for a completion."""
MOST_SURPRISE = 2.0
"""Nats per token beyond what is usual."""
USUAL = 1.0
"""Nats per token that are usual where no own completion tells."""
TOO_MANY = 0.25
"""Share of a body's judged groups that are not believed from which the body counts for nothing. Few of a body are dealt
into updates; of honest groups one or two in a thousand at most are not believed (docs/checks.md)."""

Screen: TypeAlias = Callable[
    [Engine, Sequence[TrainingGroup], float, MicroBatchLimit, Callable[[int], None]], list[bool]
]
"""Tells of each group whether an update may learn from it."""


def credible(
    engine: Engine, groups: Sequence[TrainingGroup], usual: float, room: MicroBatchLimit, watch: Callable[[int], None]
) -> list[bool]:
    """Tell of each group whether it is this node's own, or credible where so much surprise is usual.

    `watch(tokens)` is called before each batch with the tokens (as `engine.cost` counts) judged so far; it may raise.
    """
    external = [group for group in groups if group.external]
    logps = _logps(engine, external, room, watch)
    found = iter([is_credible(group, each, usual) for group, each in zip(external, logps, strict=True)])
    return [not group.external or next(found) for group in groups]


def is_credible(group: TrainingGroup, logps: Sequence[Sequence[float]], usual: float) -> bool:
    """Tell whether nothing in a group is claimed too unlikely, and half of what is better than its mean no surprise.

    `logps` are those of its completions' tokens under this policy. Where they are not finite the group is no reason.
    """
    gains = (math.fsum(pi) - math.fsum(mu) for pi, mu in zip(logps, group.behaviour, strict=True) if mu)
    better = [-math.fsum(pi) / len(pi) for pi, value in zip(logps, group.advantages, strict=True) if value > 0]
    strange = sum(surprise > usual + MOST_SURPRISE for surprise in better)
    return not any(gain > MOST_GAIN for gain in gains) and 2 * strange <= len(better)


def usual_surprise(own: Sequence[TrainingGroup]) -> float:
    """Return the mean surprise per token of this node's own completions when they were sampled, `USUAL` without any.

    Those that teach nothing count too: a model that gets nothing right still knows what it would write.
    """
    known = [logp for group in own for row in group.behaviour for logp in row]
    return -math.fsum(known) / len(known) if known else USUAL


def disbelieved(kept: Iterable[TrainingGroup], left_out: Iterable[TrainingGroup]) -> tuple[Digest, ...]:
    """Return the foreign bodies of whose judged groups `TOO_MANY` or more were left out; one judged twice counts once.

    A body answers a question once, so that a group is known by its body and prompt.
    """
    verdicts = {
        (group.body, tuple(group.prompt)): verdict
        for verdict, groups in ((True, kept), (False, left_out))
        for group in groups
        if group.external
    }
    judged = Counter(body for body, _ in verdicts)
    found = Counter(body for (body, _), believed in verdicts.items() if not believed)
    return tuple(sorted(body for body, count in found.items() if count >= TOO_MANY * judged[body]))


def _logps(
    engine: Engine, groups: Sequence[TrainingGroup], room: MicroBatchLimit, watch: Callable[[int], None]
) -> list[list[list[float]]]:
    """Return the log-probability of every token, by group and completion.

    Micro-batches come in an order of their own; their pieces hold the very lists of their groups, by which they are
    told apart.
    """
    found: dict[int, list[float]] = {}
    done = 0
    for part in micro_batches(groups, room, engine.cost):
        watch(done)
        done += sum(map(engine.cost, part))
        with torch.no_grad():
            flat = iter(engine.completion_logps(part).tolist())
        for piece in part:
            for completion in piece.completions:
                found[id(completion)] = list(islice(flat, len(completion)))
    return [[found[id(completion)] for completion in group.completions] for group in groups]
