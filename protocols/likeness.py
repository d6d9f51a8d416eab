"""How alike texts are, by the n-grams of their words and signs, whatever tokenizer and spacing."""

from __future__ import annotations

import re
from itertools import islice

NGRAM = 5
ALIKE = 0.8
"""Share of the n-grams of the richer of two texts that both have, from which on they count as the same."""
LONG = 40
"""N-grams from which on a text may differ in little things and be the same; of a short one every sign counts."""
PROBED = 16
"""N-grams of one text that are looked up in another before all are; of alike ones at least half are there, but for one
time in a thousand."""
NEAR = 0.8
"""Share of a completion's n-grams that stand in the reference solution, from which on it is the solution."""
REFERENCE_LEAST = 24
"""Words and signs that a completion and a solution need so that their likeness means anything: "#### 7" does not."""
REFERENCE_COMPLETIONS = 8
"""Right and long completions without which a body is not judged."""
SAMPLED = 2
"""Completions of a group that are compared with its solution: reading all would cost more than grading them."""

_PARTS = re.compile(r"[^\W\d_]+|\d|[^\w\s]")

Sketch = frozenset[int]


def parts(text: str) -> list[str]:
    """Return the words, digits and signs of a text, without case and spacing."""
    return _PARTS.findall(text.casefold())


def sketch(text: str, most: int | None = None) -> Sketch:
    """Return the hashes of the n-grams of a text, or of its first `most` parts; of the whole text where it is shorter.
    They are the same in one process only."""
    found = parts(text)[:most]
    if len(found) < NGRAM:
        return frozenset((hash(tuple(found)),))
    return frozenset(map(hash, zip(*(found[start:] for start in range(NGRAM)), strict=False)))


def are_alike(one: Sketch, other: Sketch) -> bool:
    """Tell whether two texts are the same but for little things."""
    if one == other:
        return True
    small, large = sorted((one, other), key=len)
    least = max(LONG, ALIKE * len(large))
    return len(small) >= least and _may_share(small, large) and len(small & large) >= least


def _may_share(small: Sketch, large: Sketch) -> bool:
    """Tell from a few n-grams, in no order, whether it is worth counting all: most texts have hardly any in common."""
    return 2 * sum(map(large.__contains__, islice(small, PROBED))) >= PROBED


def nearness(text: str, solution: str) -> bool | None:
    """Tell whether a text is the solution, word for word but for little; None where one is too short to tell."""
    if min(len(parts(text)), len(parts(solution))) < REFERENCE_LEAST:
        return None
    made = sketch(text)
    return len(made & sketch(solution)) >= NEAR * len(made)


def is_recital(near: list[bool]) -> bool:
    """Tell whether most of the right completions of a body are the solution."""
    return len(near) >= REFERENCE_COMPLETIONS and 2 * sum(near) > len(near)
