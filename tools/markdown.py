"""Pages and tables in Markdown, as the generated reference has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTICE = "<!-- Written by `make docs` from the code: change it there. -->"


def page(title: str, introduction: str, *parts: str) -> str:
    """Return a page."""
    return "\n\n".join([NOTICE, f"# {title}", " ".join(introduction.split()), *parts]).rstrip() + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; bars inside cells are escaped."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def code(value: str) -> str:
    """Return a value in code type, nothing for nothing."""
    return f"`{value}`" if value else ""
