"""What a claim's experiments yield: rows of measured numbers, and curves to draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes

Numbers = dict[str, float | str | list[float] | list[int]]


@dataclass(frozen=True)
class Row:
    """One experiment: what was measured, what the claim expects, and whether it holds.

    Args:
        case: what was run.
        expected: the claim, as a sentence about `numbers`.
        numbers: everything that was measured; `holds` was computed from it.
        holds: whether the measurement bears the claim out.
    """

    case: str
    expected: str
    numbers: Numbers
    holds: bool


@dataclass(frozen=True)
class Panel:
    """One picture of the figure."""

    title: str
    draw: Callable[[Axes], None]


@dataclass(frozen=True)
class Claim:
    """A claim of the lesson with its evidence."""

    number: int
    title: str
    rows: list[Row]
    panels: list[Panel] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every row holds."""
        return all(row.holds for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the pictures."""
        rows = [{**vars(row), "numbers": _plain(row.numbers)} for row in self.rows]
        return {"number": self.number, "title": self.title, "holds": self.holds, "rows": rows}


def _plain(numbers: Numbers) -> Numbers:
    """Return numbers that every reader of JSON understands: infinity and NaN become words."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in numbers.items()
    }
