"""The text at the end of a demo."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from node.localnet.demo_summary import DemoSummary, answer_remark, remarks, skip_lines, stage_table, table, vote_lines

SHOWN_VOTES = 8
WIDTH = 120
"""Width if the output is not a terminal, so that transaction hashes stay on one line."""


def print_summary(summary: DemoSummary) -> None:
    """Print the table of peers, the effect of sharing, votes with their transactions, and skips with their reasons."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH, soft_wrap=True)
    console.print(_table(table(summary)))
    if len(summary.stages) > 1:
        console.print(_table(stage_table(summary), "The stages", total=False))
    for line in (*remarks(summary), answer_remark(summary)):
        console.print(line, highlight=False)
    console.print(
        f"\nThe last votes on chain, with the transactions that carry them (all {len(summary.votes)} in JSON):"
    )
    for line in vote_lines(summary, SHOWN_VOTES):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    skips = skip_lines(summary)
    console.print("\nSkipped:" if skips else "\nNo peer skipped anything.")
    for line in skips:
        console.print(f"  {line}", highlight=False, soft_wrap=True)


def _table(rows: list[list[str]], title: str = "The swarm", *, total: bool = True) -> Table:
    """Return a table from a header and rows; the last row is a total. Columns of numbers are right-aligned."""
    made = Table(title=title, title_justify="left")
    for name in rows[0]:
        made.add_column(name, justify="left" if name in ("peer", "name", "stage") else "right", no_wrap=True)
    for line in rows[1:-1] if total else rows[1:]:
        made.add_row(*line)
    if total:
        made.add_section()
        made.add_row(*rows[-1], style="bold")
    return made
