"""Rewards by regular expression: bounded, linear-time, the same on every peer. Foreign parsers live in node.grading."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

Grader = Callable[[str, str], float]

_TAIL = 256
_DIGITS = 32
_FINAL = re.compile(r"####[ \t]*\$?(-?[0-9][0-9,]{0,40}(?:\.[0-9]{1,32})?)\s*\Z")
_NUMBER = re.compile(r"-?[0-9][0-9,]{0,40}(?:\.[0-9]{1,32})?")


def parse_number(text: str) -> Decimal | None:
    """Return the ASCII decimal number with optional thousands separators that `text` is, or None."""
    plain = text.strip().replace(",", "").replace("$", "")
    if not plain or len(plain) > _DIGITS or not plain.isascii():
        return None
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


def reference_number(answer: str) -> Decimal | None:
    """Return the number of a reference answer: what follows its last "####" (GSM8K), else the whole text."""
    return parse_number(answer.rsplit("####", 1)[-1][-_TAIL:])


def final_number(completion: str, answer: str) -> float:
    """Return 1.0 where the completion ends in "#### N" with the reference's number, else 0.0 (GSM8K's format)."""
    found = _FINAL.search(completion[-_TAIL:])
    return _equal(found.group(1) if found else None, answer)


def last_number(completion: str, answer: str) -> float:
    """Return 1.0 where the last number of the completion's first line is the reference's, else 0.0."""
    line = completion.lstrip().split("\n", 1)[0][-_TAIL:]
    found = _NUMBER.findall(line)
    return _equal(found[-1] if found else None, answer)


def _equal(found: str | None, answer: str) -> float:
    value = parse_number(found) if found else None
    return float(value is not None and value == reference_number(answer))


GRADERS: dict[str, Grader] = {"final-number": final_number, "last-number": last_number}
"""Graders by the name that a manifest gives."""
