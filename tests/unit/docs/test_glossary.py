"""The glossary has the words of the code, each once, in order."""

import re
from functools import cache

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "glossary.md"
SOURCES = {"node": ("*.py", "*.html", "*.js"), "protocols": ("*.py",), "contracts": ("*.py", "*.sol")}


def sections() -> list[list[str]]:
    """Return the words of each section, as they are written."""
    return [
        re.findall(r"^\| ([^|]+?) \| (?!---)(?!Meaning)", part, re.M) for part in PAGE.read_text().split("\n## ")[1:]
    ]


@cache
def code() -> str:
    """Return the text of every source file."""
    return "\n".join(
        path.read_text()
        for folder, patterns in SOURCES.items()
        for pattern in patterns
        for path in sorted((ROOT / folder).rglob(pattern))
    )


def occurs(word: str) -> bool:
    """Return True if a word or phrase occurs in the code: in text, or as part of an identifier of any case."""
    parts = (re.escape(part) for part in re.split(r"[ -]", word))
    return re.search(r"[\W_]*".join(parts), code(), re.I) is not None


def test_every_word_occurs_in_the_code() -> None:
    """A word that nothing uses any more leaves the page."""
    words = [word for section in sections() for line in section for word in line.split(", ")]
    assert len(words) > 100
    assert [word for word in words if not occurs(word)] == []


def test_a_word_that_the_code_does_not_use_is_noticed() -> None:
    """The search is no formality: a made-up word is not found."""
    assert not occurs("gang" + "plank")


def test_no_word_stands_twice() -> None:
    """One meaning a word."""
    words = [word.lower() for section in sections() for word in section]
    assert sorted({word for word in words if words.count(word) > 1}) == []


def test_each_section_is_alphabetical() -> None:
    """So that a reader finds a word."""
    for words in sections():
        assert len(words) > 5
        assert words == sorted(words, key=str.lower)
