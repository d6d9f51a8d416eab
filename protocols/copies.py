"""Whether one body repeats another: how unlikely it is that sampling anew gave the same completions.

Both answer some question with `G` completions each. The texts of one fall into classes of what is the same
(`protocols.likeness`). Had the other been sampled independently, by whatever model, each of its completions would fall
into these classes with some probabilities p. That a given choice of s of them does so exactly as observed, m_j in class
j, has at most the probability prod (m_j / s) ** m_j: no p makes it likelier. Times the number of such choices, this
bounds the chance of a match as good or better. So nothing needs to be known of any model, a task whose answers are all
the same proves nothing by itself, and honest peers are safe as long as they draw their own random numbers.

The evidence of several questions is put together by Fisher's method. A copier may reorder completions, which is why the
match is also measured without order; who rewrites most of them escapes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from protocols.likeness import LONG, Sketch, are_alike, sketch

CHANCE = 1e-9
"""Probability of an honest accusation, per pair of bodies, that is put up with; a swarm of 100 that plays a million
stages of one question set compares 5e9 pairs, so a handful of its ten million bodies."""

COMPARED = 256
"""Words and signs from the beginning of a text that are compared: nobody who samples anew comes so far."""

Classes = tuple[int, ...]
"""For each completion of a group the class that it falls into; -1 for none."""


class Written(msgspec.Struct, frozen=True):
    """What a group says: one sketch for each completion, in its order."""

    sketches: tuple[Sketch, ...]


def written(texts: Iterable[str]) -> Written:
    """Return what is compared of a group."""
    return Written(tuple(map(_compared, texts)))


def _compared(text: str) -> Sketch:
    """Return the n-grams of a text's beginning; of a short one, which is alike to its equals only, one hash of all."""
    made = sketch(text, COMPARED)
    return made if len(made) >= LONG else frozenset((hash(made),))


def ngrams(body: Mapping[int, Written]) -> int:
    """Return how many n-grams are kept of a body."""
    return sum(len(each) for group in body.values() for each in group.sketches)


def classes(first: Written, second: Written) -> tuple[Classes, Classes]:
    """Return the classes that two groups fall into; those of the first make them."""
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
    """Return minus the logarithm of the bound on the chance of a match, at least 0.

    `matched` counts the matching completions in each class, out of `of`; `ordered` where each matches the one in its
    own place.
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
    """Return Fisher's bound on the chance that independent matches are together this surprising."""
    total = sum(nats)
    if total > 700:
        return 0.0
    return math.exp(-total) * sum(
        math.exp(k * math.log(total) - math.lgamma(k + 1)) if total else k == 0 for k in range(len(nats))
    )


def is_copy(pairs: Iterable[tuple[Written, Written]]) -> bool:
    """Tell whether groups on the same questions, those of one body and those of another, can't both be sampled.

    Questions that one body answers in one way only tell nothing and are left out.
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
