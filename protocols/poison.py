"""Degenerate texts: endless repetition, unreadable characters, more text than the tokens can hold.

The attack: rollouts that are right and harm whoever trains on them (arXiv 2511.09780). A model early in training writes
such texts too, but they are hardly ever right. So an external group is skipped if a degenerate completion has a
positive advantage, and a body is refused only if most of its *right* completions are degenerate. Measurements:
docs/checks.md.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

from protocols.wire import Completion

Flaw: TypeAlias = Literal["", "repetition", "characters", "length"]

CHARS_PER_TOKEN, CHARS_FREE = 16, 64
"""Upper bound of characters: `CHARS_FREE`, and `CHARS_PER_TOKEN` each. A token averages 3 to 5 in any script."""
LONGEST_TOKEN = 128
"""Characters of the longest single token, of blanks or signs (in the vocabularies of GPT-4, Llama 3 and Qwen)."""
REPEATED_TIMES = 16
"""Repetitions at the end of a text that make it degenerate; tables of equal rows and columns of sums have fewer."""
LONGEST_PERIOD = 128
"""Most characters of the repeated part."""
CLOSING = 64
"""Characters at the end that are not examined: a right completion has its answer there."""
DEFLATED_LONG, DEFLATED_SHARE = 512, 0.08
"""Size in bytes from which a text is measured by DEFLATE, and the ratio below which it is degenerate. English prose
compresses to 0.4, worked solutions to 0.3, one repeated sentence to 0.02 (0.001 is the minimum)."""
UNREADABLE_SHARE = 0.05
"""Share of unreadable characters. All of GSM8K has two of them, in texts of 160 and 493 characters."""
BROKEN, MOST_BROKEN = "\ufffd", 3
"""The replacement for bytes of a character that was cut off at the end, and how many of them are tolerated."""

RIGHT = 0.5
"""Reward from which a completion counts as right."""
RIGHT_LEAST = 4
"""A body with fewer right completions is not judged."""

_UNREADABLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ue000-\uf8ff\ufeff\ufffd"
    r"\U000e0000-\U0010ffff]"
)
"""Characters that no script needs; joiners are not among them."""


def flaw(completion: Completion) -> Flaw:
    """Return in which way a completion is degenerate, "" if it is not."""
    text = completion.text
    if not fits(completion, CHARS_PER_TOKEN):
        return "length"
    if is_unreadable(text):
        return "characters"
    return "repetition" if is_repetitive(text) else ""


def fits(completion: Completion, longest: int) -> bool:
    """Return True if a completion's tokens can hold its text, at `longest` characters each."""
    return len(completion.text) <= CHARS_FREE + longest * (len(completion.tokens) // 4)


def is_unreadable(text: str) -> bool:
    """Return True if too many characters are control, invisible, private-use or replacement characters."""
    cut_off = min(MOST_BROKEN, len(text) - len(text.rstrip(BROKEN)))
    return len(_UNREADABLE.findall(text)) - cut_off > UNREADABLE_SHARE * len(text)


def is_repetitive(text: str) -> bool:
    """Return True if a text ends in a loop, or is long and has almost no information."""
    data = text.encode(errors="replace")
    if len(data) >= DEFLATED_LONG and len(zlib.compress(data, 1)) < DEFLATED_SHARE * len(data):
        return True
    return ends_in_a_loop(text[: len(text) - min(CLOSING, len(text) // 4)])


def ends_in_a_loop(text: str) -> bool:
    """Return True if a text ends in `REPEATED_TIMES` repetitions of a part of at most `LONGEST_PERIOD` characters.

    Compares the tail with itself, shifted by each possible period.
    """
    for period in range(1, min(LONGEST_PERIOD, len(text) // REPEATED_TIMES) + 1):
        tail = text[-period * REPEATED_TIMES :]
        if tail[period:] == tail[:-period]:
            return True
    return False


def is_poison(right: Sequence[Completion]) -> bool:
    """Return True if most of a body's right completions are degenerate."""
    return len(right) >= RIGHT_LEAST and 2 * sum(bool(flaw(each)) for each in right) > len(right)
