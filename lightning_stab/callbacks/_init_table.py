"""The table of `WeightInitialization`: as Markdown for loggers, compact for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from lightning_stab.functional.initialization import WeightRecord

_HEAD = ("weight", "shape", "after", "scheme", "gain", "std before", "std after")


def markdown_table(records: Sequence[WeightRecord]) -> str:
    """Return every record as a row of a Markdown table.

    Example:
        >>> print(markdown_table([WeightRecord("a.weight", "a", (2, 3), "ReLU", reason="frozen")]))
        | weight | shape | after | scheme | gain | std before | std after |
        |---|---|---|---|---|---|---|
        | a.weight | 2 x 3 | ReLU | left alone: frozen |  |  |  |
    """
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row([record]) for record in records)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join(lines)


def print_table(records: Sequence[WeightRecord], console: Console | None = None) -> None:
    """Print the records, neighbours that were treated alike in one row."""
    drawn = sum(not record.reason for record in records)
    table = Table(title=f"Weights initialised: {drawn} of {len(records)}", title_justify="left")
    for number, head in enumerate(_HEAD):
        table.add_column(head, justify="right" if number > 3 else "left", overflow="fold")
    for _, alike in groupby(records, key=_treatment):
        table.add_row(*_row(list(alike)))
    (console or Console()).print(table)


def _treatment(record: WeightRecord) -> tuple[object, ...]:
    return record.shape, record.preceding, record.scheme, record.gain, record.reason


def _row(alike: Sequence[WeightRecord]) -> tuple[str, ...]:
    first, last = alike[0], alike[-1]
    name = first.name if len(alike) == 1 else f"{first.name} … {last.name} ({len(alike)})"
    return (
        name,
        " x ".join(str(side) for side in first.shape),
        first.preceding,
        f"left alone: {first.reason}" if first.reason else first.scheme,
        "" if first.gain is None else f"{first.gain:.4g}",
        _mean([record.std_before for record in alike]),
        _mean([record.std_after for record in alike]),
    )


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.4g}" if known else ""
