"""Whether one body repeats another: a bound on the chance that independent sampling gave the same completions.

Both bodies answer a question with `G` completions each. The texts of one fall into classes of equal texts
(`protocols.likeness`). If the other was sampled independently, by whatever model, each of its completions falls into
these classes with some probabilities p. The chance that a given choice of s of them does so exactly as observed, m_j in
class j, is at most prod (m_j / s) ** m_j for every p. Times the number of such choices, this bounds the chance of a
match as good or better. No knowledge of any model is needed, a task with only one answer proves nothing, and honest
peers are safe as long as they draw their own random numbers.

The evidence of several questions is combined by Fisher's method. A copier may reorder completions, so the match is also
measured without order. A copier that rewrites most of them escapes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from protocols.likeness import LONG, Sketch, are_alike, sketch

CHANCE = 1e-9
"""Accepted probability of accusing an honest peer, per pair of bodies. A swarm of 100 that plays a million stages of
one question set compares 5e9 pairs, so this accuses a handful of its hundred million bodies."""

COMPARED = 256
"""Words and signs that are compared, from the beginning of a text: independent samples never agree that far."""

Classes = tuple[int, ...]
"""The class of each completion of a group; -1 for none."""


class Written(msgspec.Struct, frozen=True):
    """A group as it is compared: one sketch per completion, in order."""

    sketches: tuple[Sketch, ...]


def written(texts: Iterable[str]) -> Written:
    """Return the sketches of a group's completions."""
    return Written(tuple(map(_compared, texts)))


def _compared(text: str) -> Sketch:
    """Return the n-grams of a text's beginning; one hash of all of them for a short text, which must match exactly."""
    made = sketch(text, COMPARED)
    return made if len(made) >= LONG else frozenset((hash(made),))


def ngrams(body: Mapping[int, Written]) -> int:
    """Return the number of n-grams kept of a body."""
    return sum(len(each) for group in body.values() for each in group.sketches)


def classes(first: Written, second: Written) -> tuple[Classes, Classes]:
    """Return the classes of the completions of two groups; the first group defines the classes."""
    made: list[Sketch] = []
    known: dict[Sketch, int] = {}

    def place(each: Sketch, *, new: bool) -> int:
        if each in known:
            return known[each]
        found = next((number for number, other in enumerate(made) if are_alike(each, other)), -1)
        if found < 0 and new:
            found = len(made)
            made.append(each)
        known[each] = found
        return found

    mine = tuple([place(each, new=True) for each in first.sketches])
    return mine, tuple([place(each, new=False) for each in second.sketches])


def surprise(matched: Sequence[int], of: int, *, ordered: bool) -> float:
    """Return minus the logarithm (nats) of the bound on the chance of a match, at least 0.

    `matched` counts the matching completions in each class, out of `of`. With `ordered`, each matched the completion at
    its own index.
    """
    count = sum(matched)
    if not count:
        return 0.0
    nats = sum(each * math.log(count / each) for each in matched) - _log_choices(of, count)
    if not ordered:
        orders = math.lgamma(count + 1) - sum(math.lgamma(each + 1) for each in matched)
        nats -= orders + _log_choices(of, count)
    return max(0.0, nats)


def _log_choices(of: int, count: int) -> float:
    return math.log(math.comb(of, count))


def chance(nats: Sequence[float]) -> float:
    """Return the chance, by Fisher's method, that independent matches are together this surprising."""
    total = sum(nats)
    if total > 700:
        return 0.0
    return math.exp(-total) * sum(
        math.exp(k * math.log(total) - math.lgamma(k + 1)) if total else k == 0 for k in range(len(nats))
    )


def is_copy(pairs: Iterable[tuple[Written, Written]]) -> bool:
    """Return True if groups of two bodies on the same questions can't both have been sampled.

    Questions that the first body answers in only one way carry no information and are left out.
    """
    in_place: list[float] = []
    anyhow: list[float] = []
    for first, second in pairs:
        mine, theirs = classes(first, second)
        if len(set(mine)) < 2:
            continue
        same = Counter(one for one, other in zip(mine, theirs, strict=False) if one == other)
        shared = Counter(mine) & Counter(theirs)
        in_place.append(surprise(tuple(same.values()), len(mine), ordered=True))
        anyhow.append(surprise(tuple(shared.values()), len(mine), ordered=False))
    return min(chance(in_place), chance(anyhow)) <= CHANCE / 2 if in_place else False
