r"""What a short final answer means: numbers as exact fractions, anything else as text in a normal form.

Everything is a bounded regular expression over at most `LONGEST` characters: nothing is evaluated, so an answer costs
the same whatever it says. Digits are ASCII: others that `int` would take ("٤") are no digits here.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

import msgspec

LONGEST = 256
"""Characters of an answer; a longer one is equivalent to nothing."""

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,12}|[0-9]{1,40})(?:\.[0-9]{0,40})?|\.[0-9]{1,40}"
_NO_UNIT = (
    "or|and|nor|not|no|is|isn|are|was|but|if|unless|except|plus|minus|over|maybe|perhaps|wrong|incorrect|pi|am|pm|"
    "half|dozen|hundred|thousand|million|billion|trillion"
)
"""Words that make another answer of a number, or none."""
_CLOSE_UNIT = "[ckm]m|[km]g|ml|lbs?|oz|ft|in|yd|mi|mph|kph|hrs?|mins?|secs?|st|nd|rd|th"
"""Units that may stand at a number without a space: other letters there are variables, if fewer than four."""
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
    """A number, and whether a percent sign stood behind it."""

    value: Fraction
    percent: bool = False


def equivalent(reference: str, given: str) -> bool:
    """Tell whether a given answer means what the reference means. The reference comes first: it decides the kind.

    A percentage equals the fraction it stands for; against a reference or an answer without a percent sign the sign
    may also be missing ("50" for "50%"), but two percentages are compared as such.
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
    """Return an answer without what does not change its meaning: delimiters, spacing commands, dollar and degree signs,
    a leading "x =", a closing full stop. Empty for one that is longer than `LONGEST`."""
    if len(text) > LONGEST:
        return ""
    for old, new in _SAME:
        text = text.replace(old, new)
    text = _WORDS.sub(r" \1", _DROPPED.sub("", text))
    text = _SPACE.sub(" ", text).lstrip(" *").rstrip(" *.")
    return _NAME.sub("", text, count=1) if _NAME.match(text) else text


@lru_cache(maxsize=1024)
def quantity(text: str) -> Quantity | None:
    """Return the number that a text in normal form is, or None: an integer, decimal, ratio, fraction or percentage,
    with a unit of plain words behind it or none: two letters at least, and no word that makes another answer of it."""
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
