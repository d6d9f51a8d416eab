"""Similarity of texts by the n-grams of their words and signs, independent of tokenizer and spacing."""

from __future__ import annotations

import re
from itertools import islice

NGRAM = 5
ALIKE = 0.8
"""Shared n-grams, relative to the text with more of them, from which two texts count as the same."""
LONG = 40
"""Texts with fewer n-grams must be equal to count as the same; longer ones may differ slightly."""
PROBED = 16
"""N-grams of one text that are looked up in the other as a pre-filter, with 0.1 % false negatives: in similar texts at
least half of them are found."""
NEAR = 0.8
"""Share of a completion's n-grams found in the reference solution from which it counts as recited."""
REFERENCE_LEAST = 24
"""Words and signs that completion and solution need for the comparison to mean anything: "#### 7" has too few."""
REFERENCE_COMPLETIONS = 8
"""A body with fewer right and long completions is not judged."""
SAMPLED = 2
"""Completions per group that are compared with the solution: comparing all would cost more than grading them."""

_PARTS = re.compile(r"[^\W\d_]+|\d|[^\w\s]")

Sketch = frozenset[int]


def parts(text: str) -> list[str]:
    """Return the words, digits and signs of a text, ignoring case and spacing."""
    return _PARTS.findall(text.casefold())


def sketch(text: str, most: int | None = None) -> Sketch:
    """Return the hashes of the n-grams of a text, or of its first `most` parts; one hash for a text without n-grams.
    Hashes are comparable within one process only."""
    found = parts(text)[:most]
    if len(found) < NGRAM:
        return frozenset((hash(tuple(found)),))
    return frozenset(map(hash, zip(*(found[start:] for start in range(NGRAM)), strict=False)))


def are_alike(one: Sketch, other: Sketch) -> bool:
    """Return True if two texts are the same except for small differences."""
    if one == other:
        return True
    small, large = sorted((one, other), key=len)
    least = max(LONG, ALIKE * len(large))
    return len(small) >= least and _may_share(small, large) and len(small & large) >= least


def _may_share(small: Sketch, large: Sketch) -> bool:
    """Return False if a few arbitrary n-grams already rule a match out: most texts have hardly any in common."""
    return 2 * sum(map(large.__contains__, islice(small, PROBED))) >= PROBED


def nearness(text: str, solution: str) -> bool | None:
    """Return True if a text is almost word for word the solution; None if either is too short to judge."""
    if min(len(parts(text)), len(parts(solution))) < REFERENCE_LEAST:
        return None
    made = sketch(text)
    return len(made & sketch(solution)) >= NEAR * len(made)


def is_recital(near: list[bool]) -> bool:
    """Return True if most of a body's right completions are the solution."""
    return len(near) >= REFERENCE_COMPLETIONS and 2 * sum(near) > len(near)
