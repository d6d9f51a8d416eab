"""The off-policy filter: which groups of other peers an update may learn from, asked of this node's own model.

Rewards are recomputed, so that nobody gains by claiming them. What is left to a liar is how likely a text was. Two
measurements tell:

    log ratio  log pi / mu of a whole completion (the log importance ratio). If mu sampled it, pi / mu has mean 1. By
               Markov's inequality an honest log ratio then exceeds 7 nats less than once in a thousand times, whatever
               both policies are. It exceeds them where a low mu is claimed for more weight.
    NLL        -log pi per token. Right answers that this model would hardly write teach it to ramble if mu is kept
               back. If mu is true their weight is small, and what they leave is the push away from the wrong ones.

A group counts as a whole or not at all: its advantages are relative to each other. The machine learns which bodies
have many such groups, so that they earn neither rank nor score.
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

MAX_LOG_RATIO = 7.0
"""Nats for a completion."""
MAX_EXCESS_NLL = 2.0
"""Nats per token beyond this model's own."""
DEFAULT_NLL = 1.0
"""Nats per token of this model's own completions where there are none."""
MAX_REJECTED_SHARE = 0.25
"""Share of a body's judged groups that are rejected from which the whole body counts for nothing. Few groups of a body
are drawn into updates; of honest groups one or two in a thousand at most are rejected (docs/checks.md)."""

OffPolicyFilter: TypeAlias = Callable[
    [Engine, Sequence[TrainingGroup], float, MicroBatchLimit, Callable[[int], None]], list[bool]
]
"""Returns for each group whether an update may learn from it."""


def filter_mask(
    engine: Engine,
    groups: Sequence[TrainingGroup],
    own_nll: float,
    limit: MicroBatchLimit,
    watch: Callable[[int], None],
) -> list[bool]:
    """Return for each group whether it is this node's own or passes the filter; `own_nll` is `mean_nll` of own groups.

    `watch(tokens)` is called before each micro-batch with the tokens (as `engine.cost` counts) judged so far; it may
    raise.
    """
    external = [group for group in groups if group.external]
    logps = _logps(engine, external, limit, watch)
    passed = iter([passes_filter(group, each, own_nll) for group, each in zip(external, logps, strict=True)])
    return [not group.external or next(passed) for group in groups]


def passes_filter(group: TrainingGroup, logps: Sequence[Sequence[float]], own_nll: float) -> bool:
    """Return True if no completion has too high a log ratio, and at most half of those better than the mean too high an
    NLL.

    `logps` are the log-probabilities of its completions' tokens under this policy. Those that are not finite are no
    reason to reject a group.
    """
    log_ratios = (math.fsum(pi) - math.fsum(mu) for pi, mu in zip(logps, group.behaviour, strict=True) if mu)
    nlls = [-math.fsum(pi) / len(pi) for pi, advantage in zip(logps, group.advantages, strict=True) if advantage > 0]
    unlikely = sum(nll > own_nll + MAX_EXCESS_NLL for nll in nlls)
    return not any(log_ratio > MAX_LOG_RATIO for log_ratio in log_ratios) and 2 * unlikely <= len(nlls)


def mean_nll(own: Sequence[TrainingGroup]) -> float:
    """Return the mean NLL per token of this node's own completions when they were sampled, `DEFAULT_NLL` without any.

    Groups without an advantage count too: a model that gets nothing right still knows what it would write.
    """
    known = [logp for group in own for completion in group.behaviour for logp in completion]
    return -math.fsum(known) / len(known) if known else DEFAULT_NLL


def rejected_bodies(kept: Iterable[TrainingGroup], rejected: Iterable[TrainingGroup]) -> tuple[Digest, ...]:
    """Return the external bodies of whose judged groups `MAX_REJECTED_SHARE` or more were rejected.

    A group judged twice counts once. A body answers a question once, so that a group is known by its body and prompt.
    """
    verdicts = {
        (group.body, tuple(group.prompt)): passed
        for passed, groups in ((True, kept), (False, rejected))
        for group in groups
        if group.external
    }
    judged = Counter(body for body, _ in verdicts)
    found = Counter(body for (body, _), passed in verdicts.items() if not passed)
    return tuple(sorted(body for body, count in found.items() if count >= MAX_REJECTED_SHARE * judged[body]))


def _logps(
    engine: Engine, groups: Sequence[TrainingGroup], limit: MicroBatchLimit, watch: Callable[[int], None]
) -> list[list[list[float]]]:
    """Return the log-probability of every token, by group and completion."""
    # Micro-batches have an order of their own. Their pieces hold the very lists of their groups: by these they are
    # told apart.
    found: dict[int, list[float]] = {}
    done = 0
    for micro_batch in micro_batches(groups, limit, engine.cost):
        watch(done)
        done += sum(map(engine.cost, micro_batch))
        with torch.no_grad():
            flat = iter(engine.completion_logps(micro_batch).tolist())
        for piece in micro_batch:
            for completion in piece.completions:
                found[id(completion)] = list(islice(flat, len(completion)))
    return [[found[id(completion)] for completion in group.completions] for group in groups]
