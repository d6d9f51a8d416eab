"""Texts that no honest work is made of: endless repetition, characters nobody can read, more text than tokens can hold.

Known attack: rollouts that are right and spoil who trains on them (arXiv 2511.09780). An honest young model writes such
texts too, but they are hardly ever right. So a foreign group is not trained on where one would be made likelier, and a
body is refused only where most of what is *right* in it is like that. What was measured stands in docs/checks.md.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

from protocols.wire import Completion

Flaw: TypeAlias = Literal["", "repetition", "characters", "length"]

CHARS_PER_TOKEN, CHARS_FREE = 16, 64
"""A token is 3 to 5 characters long on average, in any script."""
LONGEST_TOKEN = 128
"""Characters of the longest single token, of blanks or signs (in the vocabularies of GPT-4, Llama 3 and Qwen)."""
REPEATED_TIMES = 16
"""How often in a row the end of a text may say the same; a table of equal rows, or a column of sums, is shorter."""
LONGEST_PERIOD = 128
"""Characters of what is repeated, at most."""
CLOSING = 64
"""Characters at the end that are passed over: what is right has its answer there."""
DEFLATED_LONG, DEFLATED_SHARE = 512, 0.08
"""From how many bytes on a text is measured by DEFLATE, and the share below which it says nothing new. English prose
comes to 0.4, worked solutions to 0.3, one sentence over and over to 0.02 (it can't come below 0.001)."""
STRANGE_SHARE = 0.05
"""Share of characters that can't be read. In all texts of GSM8K there are two, of 160 and 493 characters."""
BROKEN, MOST_BROKEN = "\ufffd", 3
"""What stands for the bytes of a character that was cut off at the end, and how many of them are no fault."""

RIGHT = 0.5
"""Reward from which a completion counts as right."""
RIGHT_LEAST = 4
"""Right completions without which a body is not judged."""

_STRANGE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ue000-\uf8ff\ufeff\ufffd"
    r"\U000e0000-\U0010ffff]"
)
"""What no script writes with: joiners are not among them."""


def flaw(completion: Completion) -> Flaw:
    """Return what is degenerate about a completion, an empty text for nothing."""
    text = completion.text
    if not fits(completion, CHARS_PER_TOKEN):
        return "length"
    if is_unreadable(text):
        return "characters"
    return "repetition" if is_repetitive(text) else ""


def fits(completion: Completion, longest: int) -> bool:
    """Tell whether a completion's tokens can hold its text, where each has so many characters at most."""
    return len(completion.text) <= CHARS_FREE + longest * (len(completion.tokens) // 4)


def is_unreadable(text: str) -> bool:
    """Tell whether too many characters are controls, invisible, private, or stand for broken ones."""
    cut_off = min(MOST_BROKEN, len(text) - len(text.rstrip(BROKEN)))
    return len(_STRANGE.findall(text)) - cut_off > STRANGE_SHARE * len(text)


def is_repetitive(text: str) -> bool:
    """Tell whether a text ends in one thing over and over, or is long and says next to nothing new."""
    data = text.encode(errors="replace")
    if len(data) >= DEFLATED_LONG and len(zlib.compress(data, 1)) < DEFLATED_SHARE * len(data):
        return True
    return ends_in_a_loop(text[: len(text) - min(CLOSING, len(text) // 4)])


def ends_in_a_loop(text: str) -> bool:
    """Tell whether a text closes with the same part, of at most `LONGEST_PERIOD` characters, `REPEATED_TIMES` times.

    For every length of the part one comparison of the tail with itself, shifted.
    """
    for period in range(1, min(LONGEST_PERIOD, len(text) // REPEATED_TIMES) + 1):
        tail = text[-period * REPEATED_TIMES :]
        if tail[period:] == tail[:-period]:
            return True
    return False


def is_poison(right: Sequence[Completion]) -> bool:
    """Tell whether most of a body's right completions are degenerate."""
    return len(right) >= RIGHT_LEAST and 2 * sum(bool(flaw(each)) for each in right) > len(right)
