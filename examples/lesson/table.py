"""The measured results as a table on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from examples.lesson.results import Claim


def print_table(claims: list[Claim], console: Console) -> None:
    """Print one line for each experiment."""
    table = Table(box=box.SIMPLE_HEAD, show_lines=False, pad_edge=False)
    table.add_column("claim and case", no_wrap=False, ratio=3)
    table.add_column("expected", ratio=3)
    table.add_column("measured", ratio=5)
    table.add_column("holds", justify="center")
    for claim in claims:
        table.add_section()
        table.add_row(f"[bold]{claim.number}  {claim.title}", "", "", "")
        for row in claim.rows:
            measured = "; ".join(f"{name} {short(value)}" for name, value in row.numbers.items())
            holds = "[green]yes" if row.holds else "[bold red]NO"
            table.add_row(f"   {row.case}", row.expected, measured, holds)
    console.print(table)


def short(value: float | str | list[float] | list[int]) -> str:
    """Return a number, or each of a list, with three significant digits.

    Example:
        >>> short(0.123456), short(23700000.0), short("named")
        ('0.123', '2.37e+07', 'named')
    """
    if isinstance(value, list):
        return " ".join(map(short, value))
    return value if isinstance(value, str) else f"{value:.3g}"
