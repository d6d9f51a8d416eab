r"""The meaning of a short final answer: numbers as exact fractions, anything else as text in a normal form.

Bounded regular expressions over at most `LONGEST` characters; nothing is evaluated, so the cost does not depend on the
content. Digits are ASCII: others that `int` accepts ("٤") do not count.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

import msgspec

LONGEST = 256
"""Most characters of an answer; a longer one equals nothing."""

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,12}|[0-9]{1,40})(?:\.[0-9]{0,40})?|\.[0-9]{1,40}"
_NO_UNIT = (
    "or|and|nor|not|no|is|isn|are|was|but|if|unless|except|plus|minus|over|maybe|perhaps|wrong|incorrect|pi|am|pm|"
    "half|dozen|hundred|thousand|million|billion|trillion"
)
"""Words that change the answer if they follow a number."""
_CLOSE_UNIT = "[ckm]m|[km]g|ml|lbs?|oz|ft|in|yd|mi|mph|kph|hrs?|mins?|secs?|st|nd|rd|th"
"""Units that may follow a number without a space; fewer than four other letters there are variables."""
_UNIT = (
    rf"(?:(?: (?=[A-Za-z]{{2}})|(?=(?:{_CLOSE_UNIT})\b|[A-Za-z]{{4}}))(?![A-Za-z .]*(?<![A-Za-z])(?i:{_NO_UNIT})\b)"
    r"[A-Za-z][A-Za-z .]{0,60})?"
)
_PLAIN = re.compile(rf"([+-]?)({_NUMBER})( ?%)?{_UNIT}")
_RATIO = re.compile(rf"([+-]?)({_NUMBER}) ?/ ?({_NUMBER}){_UNIT}")
_FRACTION = re.compile(rf"([+-]?)\\frac ?\{{ ?([+-]?(?:{_NUMBER})) ?\}} ?\{{ ?([+-]?(?:{_NUMBER})) ?\}}{_UNIT}")
_SHORT_FRACTION = re.compile(rf"([+-]?)\\frac ?([0-9])([0-9]){_UNIT}")

_DROPPED = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[()\[\]!,;]|\\?\$|\^ ?(?:\{ ?\\circ ?\}|\\circ)|°")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox|textrm) ?\{([^{}]*)\}")
_SPACE = re.compile(r"(?:\s|~|\\ |\\quad)+")
_NAME = re.compile(r"[A-Za-z] ?= ?")
_SAME = (("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\%", "%"), ("\u2212", "-"), ("{,}", ","))


class Quantity(msgspec.Struct, frozen=True):
    """A number, and whether a percent sign followed it."""

    value: Fraction
    percent: bool = False


def equivalent(reference: str, given: str) -> bool:
    """Return True if a given answer means the same as the reference, which decides whether it is a number or text.

    A percentage equals the fraction it stands for. If only one side has a percent sign, it may also be ignored ("50"
    for "50%"); two percentages are compared as such.
    """
    wanted, found = normal_form(reference), normal_form(given)
    if not wanted or not found:
        return False
    number = quantity(wanted)
    if number is None:
        return wanted.replace(" ", "") == found.replace(" ", "")
    other = quantity(found)
    return other is not None and _same(number, other)


def _same(one: Quantity, other: Quantity) -> bool:
    if one.value == other.value:
        return True
    if one.percent == other.percent:
        return False
    return (one.value / 100 if one.percent else one.value) == (other.value / 100 if other.percent else other.value)


@lru_cache(maxsize=1024)
def normal_form(text: str) -> str:
    """Return an answer stripped of what does not change its meaning: delimiters, spacing commands, dollar and degree
    signs, a leading "x =", a final full stop. Empty if it is longer than `LONGEST`."""
    if len(text) > LONGEST:
        return ""
    for old, new in _SAME:
        text = text.replace(old, new)
    text = _WORDS.sub(r" \1", _DROPPED.sub("", text))
    text = _SPACE.sub(" ", text).lstrip(" *").rstrip(" *.")
    return _NAME.sub("", text, count=1) if _NAME.match(text) else text


@lru_cache(maxsize=1024)
def quantity(text: str) -> Quantity | None:
    """Return a text in normal form as a number, None if it is not one: an integer, decimal, ratio, fraction or
    percentage, optionally followed by a unit of plain words (two letters at least, none of `_NO_UNIT`)."""
    if plain := _PLAIN.fullmatch(text):
        sign, digits, percent = plain.groups()
        return Quantity(_signed(sign, _exact(digits)), bool(percent))
    for pattern in (_RATIO, _FRACTION, _SHORT_FRACTION):
        if found := pattern.fullmatch(text):
            return _ratio(*found.groups())
    return None


def _ratio(sign: str, above: str, below: str) -> Quantity | None:
    divisor = _exact(below)
    return Quantity(_signed(sign, _exact(above) / divisor)) if divisor else None


def _exact(digits: str) -> Fraction:
    whole, _, rest = digits.replace(",", "").partition(".")
    return Fraction(int((whole + rest) or "0"), 10 ** len(rest))


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value
