"""The table of `WeightInitialization`: as Markdown for loggers, compact for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from lightning_stab.functional.initialization import WeightRecord

_HEAD = ("weight", "shape", "after", "scheme", "gain", "std before", "std after")
_READINGS = ("signal before", "signal after", "gradient before", "gradient after")
_COMPACT_HEAD = ("layer", "shape", "after", "scheme", "gain")


def markdown_table(records: Sequence[WeightRecord]) -> str:
    """Return every record as a row of a Markdown table.

    Example:
        >>> print(markdown_table([WeightRecord("a.weight", "a", (2, 3), "ReLU", reason="frozen")]))
        | weight | shape | after | scheme | gain | std before | std after |
        |---|---|---|---|---|---|---|
        | a.weight | 2 x 3 | ReLU | left alone: frozen |  |  |  |
    """
    measured = _measured(records)
    head = (*_HEAD, *(_READINGS if measured else ()))
    rows = [head, ("---",) * len(head), *(_row(record, measured) for record in records)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join(lines)


def print_table(records: Sequence[WeightRecord], console: Console | None = None) -> None:
    """Print the records, neighbours that were treated alike in one row."""
    drawn = sum(not record.reason for record in records)
    table = Table(
        title=f"Weights initialised: {drawn} of {len(records)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    measured = _measured(records)
    for head in (*_COMPACT_HEAD, *(("signal", "gradient") if measured else ("std",))):
        table.add_column(head, overflow="fold")
    for _, alike in groupby(records, key=_treatment):
        table.add_row(*_compact_row(list(alike), measured))
    (console or Console()).print(table)


def _treatment(record: WeightRecord) -> tuple[object, ...]:
    return record.shape, record.preceding, record.scheme, record.gain, record.reason


def _measured(records: Sequence[WeightRecord]) -> bool:
    return any(record.activation_std_after is not None for record in records)


def _row(record: WeightRecord, measured: bool) -> tuple[str, ...]:
    readings = (
        record.activation_std_before,
        record.activation_std_after,
        record.gradient_rms_before,
        record.gradient_rms_after,
    )
    return (
        record.name,
        _sides(record),
        record.preceding,
        _deed(record),
        _number(record.gain, 4),
        _number(record.std_before, 4),
        _number(record.std_after, 4),
        *(_number(reading, 3) for reading in readings if measured),
    )


def _compact_row(alike: Sequence[WeightRecord], measured: bool) -> tuple[str, ...]:
    first = alike[0]
    if measured:
        signals = [r.activation_std_before for r in alike], [r.activation_std_after for r in alike]
        gradients = [r.gradient_rms_before for r in alike], [r.gradient_rms_after for r in alike]
        changes = [_change(*signals), _change(*gradients)]
    else:
        changes = [_change([r.std_before for r in alike], [r.std_after for r in alike])]
    names = _span(first.name, alike[-1].name).removesuffix(".weight")
    names += f" ({len(alike)})" if len(alike) > 1 else ""
    gain = _number(first.gain, 4)
    deed = _deed(first).replace("d orthogonal", "d")  # mirrored, balanced
    return names, _sides(first).replace(" ", ""), first.preceding, deed, gain, *changes


def _change(before: Sequence[float | None], after: Sequence[float | None]) -> str:
    start, end = _mean(before), _mean(after)
    return "" if end is None else f"{_number(start, 2)}→{_number(end, 2)}"


def _span(first: str, last: str) -> str:
    """Return one name for a run of weights: ``net.2.weight, net.8.weight -> net.2-8.weight``."""
    if first.count(".") != last.count("."):
        return f"{first} - {last}"
    return ".".join(
        a if a == b else f"{a}-{b}" for a, b in zip(first.split("."), last.split("."), strict=True)
    )


def _sides(record: WeightRecord) -> str:
    return " x ".join(str(side) for side in record.shape)


def _deed(record: WeightRecord) -> str:
    return f"left alone: {record.reason}" if record.reason else record.scheme


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
