"""Every page of the documentation is in its index, and no relative link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = (*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")))
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links, without those in code and those to other sites."""
    return [each for each in LINK.findall(CODE.sub("", page.read_text())) if not re.match(r"[a-z]+:", each)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of one."""
    found = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def test_every_page_is_in_the_index() -> None:
    """A page that nobody can find is as good as none."""
    indexed = {(DOCS / link.partition("#")[0]).resolve() for link in links(INDEX)}
    pages = {page for page in DOCS.rglob("*.md") if page != INDEX and "examples" not in page.parts}
    assert sorted(str(page.relative_to(DOCS)) for page in pages - indexed) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page: Path) -> None:
    """Files and headings that a page links to exist."""
    assert broken(page) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    """Missing files and missing headings both; links in code and to other sites don't count."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n[a](page.md#one-heading) [b](gone.md) [c](#no-heading) `[d](gone.md)` [e](https://x.example/y)\n"
    )
    assert broken(page) == ["gone.md", "#no-heading"]
