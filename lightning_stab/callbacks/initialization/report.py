"""What `WeightInitialization` did: a table for loggers and the terminal, a figure over depth."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from lightning.pytorch import Trainer
from rich import box
from rich.console import Console
from rich.table import Table

from lightning_stab.callbacks._trainer.logging import log_step, log_text, tensorboard_writers
from lightning_stab.callbacks._trainer.places import reporting
from lightning_stab.functional.initialization import WeightRecord

TAG = "weight_initialization/profile"
_BEFORE, _AFTER = "#8a8a8a", "#2b8a57"
_DRAWN = {"gain": "gain", "std before": "std_before", "std after": "std_after"}
_TREATMENT = attrgetter("shape", "preceding", "scheme", "gain", "reason")
_READ = {
    "signal before": "activation_std_before",
    "signal after": "activation_std_after",
    "gradient before": "gradient_rms_before",
    "gradient after": "gradient_rms_after",
}


def markdown_table(records: Sequence[WeightRecord]) -> str:
    """Return every record as a row of a Markdown table.

    Example:
        >>> print(markdown_table([WeightRecord("a.weight", "a", (2, 3), "ReLU", reason="frozen")]))
        | weight | shape | after | scheme | gain | std before | std after |
        |---|---|---|---|---|---|---|
        | a.weight | 2 x 3 | ReLU | left alone: frozen |  |  |  |
    """
    read = _READ if _measured(records) else {}
    head = ("weight", "shape", "after", "scheme", *_DRAWN, *read)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for record in records:
        numbers = [_number(getattr(record, name), 4) for name in _DRAWN.values()]
        numbers += [_number(getattr(record, name), 3) for name in read.values()]
        row = (record.name, _sides(record, " x "), record.preceding, _action(record), *numbers)
        lines.append("| " + " | ".join(row) + " |")
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
    changes = {"std": "std"}
    if _measured(records):
        changes = {"signal": "activation_std", "gradient": "gradient_rms"}
    for head in ("layer", "shape", "after", "scheme", "gain", *changes):
        table.add_column(head, overflow="fold")
    for _, neighbours in groupby(records, key=_TREATMENT):
        alike = list(neighbours)
        first = alike[0]
        names = _span(first.name, alike[-1].name).removesuffix(".weight")
        table.add_row(
            names + (f" ({len(alike)})" if len(alike) > 1 else ""),
            _sides(first, "x"),
            first.preceding,
            _action(first).replace("d orthogonal", "d"),  # mirrored, balanced
            _number(first.gain, 4),
            *(_change(alike, quantity) for quantity in changes.values()),
        )
    (console or Console()).print(table)


def report(trainer: Trainer, records: Sequence[WeightRecord], *, verbose: bool) -> None:
    """Send table and figure to every TensorBoard logger, and print the table if asked for."""
    log_text(trainer, "weight_initialization", markdown_table(records))
    with reporting(trainer, "The figure of `WeightInitialization` cannot be drawn"):
        log_profile(trainer, records)
    if verbose and trainer.is_global_zero:
        with reporting(trainer, "The table of `WeightInitialization` cannot be printed"):
            print_table(records)


def log_profile(trainer: Trainer, records: Sequence[WeightRecord]) -> None:
    """Send the figure to every TensorBoard logger, where matplotlib is installed."""
    measured = [record for record in records if record.activation_std_after is not None]
    if len(measured) < 2 or importlib.util.find_spec("matplotlib") is None:
        return
    for writer in tensorboard_writers(trainer):
        writer.add_figure(TAG, profile_figure(measured), log_step(trainer))


def profile_figure(records: Sequence[WeightRecord]) -> Any:
    """Return a figure of the records' signal and gradient, without touching pyplot's state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    depth = range(1, len(records) + 1)
    for panel, title, quantity in zip(
        panels,
        ("signal: std of a unit over the batch", "gradient: RMS of dL/dz"),
        ("activation_std", "gradient_rms"),
        strict=True,
    ):
        for moment, color in (("before", _BEFORE), ("after", _AFTER)):
            values = [getattr(record, f"{quantity}_{moment}") for record in records]
            # A logarithm has no place for a zero: such a layer shows as a gap.
            shown = [value if value else float("nan") for value in values]
            panel.plot(depth, shown, ".-", color=color, label=moment)
        panel.set_yscale("log")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("layer")
        panel.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    return figure


def _measured(records: Sequence[WeightRecord]) -> bool:
    return any(record.activation_std_after is not None for record in records)


def _action(record: WeightRecord) -> str:
    return f"left alone: {record.reason}" if record.reason else record.scheme


def _sides(record: WeightRecord, sign: str) -> str:
    return sign.join(str(side) for side in record.shape)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _change(alike: Sequence[WeightRecord], quantity: str) -> str:
    """Return the mean of a quantity over the records, before and after."""
    means: list[float | None] = []
    for moment in ("before", "after"):
        values = [getattr(record, f"{quantity}_{moment}") for record in alike]
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return "" if means[1] is None else "→".join(_number(mean, 2) for mean in means)


def _span(first: str, last: str) -> str:
    """Return one name for a run of weights: ``net.2.weight, net.8.weight -> net.2-8.weight``."""
    if first.count(".") != last.count("."):
        return f"{first} - {last}"
    return ".".join(
        a if a == b else f"{a}-{b}" for a, b in zip(first.split("."), last.split("."), strict=True)
    )
