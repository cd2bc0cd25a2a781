"""What Lightning's `CSVLogger` writes: a column a tag, and a column ``step``."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning_stab.reporting.series import Collected, Series, joined

ROWS = ("step", "global_step", "iteration", "epoch")  # columns that can serve as the x axis


def read_csv(path: Path) -> dict[str, Series]:
    """Return the curves of a CSV log by tag; what is no number is passed over."""
    curves: dict[str, Collected] = {}
    with path.open(newline="", errors="replace") as file:
        rows = csv.DictReader(file)
        axis = next((name for name in ROWS if name in (rows.fieldnames or ())), None)
        for place, row in enumerate(rows):
            at = _number(row.get(axis) if axis else None)
            step = int(at) if at is not None and at == at and abs(at) < 1e18 else place
            for tag, text in row.items():
                value = _number(text)
                if isinstance(tag, str) and tag not in (axis, "step") and value is not None:
                    if tag not in curves:
                        curves[tag] = Collected([tag])
                    curves[tag].add(step, value)
    return {tag: joined([each.series()[tag]]) for tag, each in curves.items()}


def _number(text: object) -> float | None:
    try:
        return float(text) if isinstance(text, str) and text.strip() else None
    except ValueError:
        return None
