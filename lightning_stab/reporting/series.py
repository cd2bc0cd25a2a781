"""Curves of bounded size: long ones keep the smallest and the largest value of each stretch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MOST_CELLS = 4_000_000  # numbers that one group of curves keeps before it is thinned
FEWEST_POINTS, MOST_POINTS = 512, 8192  # of a curve, before it is thinned
STRETCH = 8  # points of which two are kept


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        steps: the x axis, ascending, of shape (points,).
        values: what was logged there, of shape (points,); not finite where that was logged.
        num_logged: how many values were logged, before any thinning.
    """

    steps: Array
    values: Array
    num_logged: int

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> Series:
        """Return the curve without what is not finite."""
        keep = np.isfinite(self.values)
        return Series(self.steps[keep], self.values[keep], self.num_logged)

    def thinned(self, most: int) -> Series:
        """Return at most about ``most`` points that look alike when they are drawn."""
        if len(self) <= most:
            return self
        stretch = -(-2 * len(self) // most)
        steps, values = thin(self.steps[:, None], self.values[:, None], stretch)
        return Series(steps[:, 0], values[:, 0], self.num_logged)

    @property
    def first_nonfinite(self) -> int | None:
        """The step of the first value that is not finite, None if all are."""
        bad = np.flatnonzero(~np.isfinite(self.values))
        return int(self.steps[bad[0]]) if len(bad) else None


def thin(steps: Array, values: Array, stretch: int) -> tuple[Array, Array]:
    """Keep of every ``stretch`` points the smallest and the largest, in their order.

    The first value of a stretch that is not finite is kept in place of the largest, and the last
    points are kept as they are, so that a curve ends where it ended.

    Args:
        steps: of shape (points, curves).
        values: of shape (points, curves).
        stretch: how many neighbours are one stretch, >= 2.

    Example:
        >>> steps, values = thin(np.arange(5)[:, None], np.array([[3.], [1], [2], [9], [4]]), 4)
        >>> steps[:, 0].tolist(), values[:, 0].tolist()
        ([1, 3, 4], [1.0, 9.0, 4.0])
    """
    num = (len(values) - 1) // stretch
    if num < 1:
        return steps, values
    cut = num * stretch
    parts = values[:cut].reshape(num, stretch, -1)
    finite = np.isfinite(parts)
    low = np.where(finite, parts, np.inf).argmin(1)
    high = np.where(finite, parts, -np.inf).argmax(1)
    high = np.where(finite.all(1), high, (~finite).argmax(1))
    picks = np.sort(np.stack([low, high], 1), axis=1)
    shape = (2 * num, values.shape[1])
    kept = np.take_along_axis(parts, picks, 1).reshape(shape)
    at = np.take_along_axis(steps[:cut].reshape(num, stretch, -1), picks, 1).reshape(shape)
    return np.concatenate([at, steps[cut:]]), np.concatenate([kept, values[cut:]])


class Collected:
    """Curves that are always logged together, collected row by row in bounded memory."""

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = tuple(tags)
        self._limit = min(max(MOST_CELLS // len(self.tags), FEWEST_POINTS), MOST_POINTS)
        self._steps = np.empty((0, len(self.tags)), np.int64)
        self._values = np.empty((0, len(self.tags)), np.float32)
        self._new_steps: list[int] = []
        self._new_rows: list[Any] = []
        self.num_logged = 0

    def add(self, step: int, row: Any) -> None:
        """Add one row, a number for each tag."""
        self._new_steps.append(step)
        self._new_rows.append(row)
        if len(self._new_steps) + len(self._steps) >= self._limit:
            self._settle()
            self._steps, self._values = thin(self._steps, self._values, STRETCH)

    def series(self) -> dict[str, Series]:
        """Return the curves by tag."""
        self._settle()
        return {
            tag: Series(self._steps[:, i], self._values[:, i].astype(np.float64), self.num_logged)
            for i, tag in enumerate(self.tags)
        }

    def _settle(self) -> None:
        if self._new_steps:
            shape = (len(self._new_steps), len(self.tags))
            steps = np.broadcast_to(np.array(self._new_steps, np.int64)[:, None], shape)
            rows = np.array(self._new_rows, np.float32).reshape(shape)
            self._steps = np.concatenate([self._steps, steps])
            self._values = np.concatenate([self._values, rows])
            self.num_logged += len(self._new_steps)
            self._new_steps, self._new_rows = [], []


def joined(parts: Sequence[Series]) -> Series:
    """Return one curve of several that were collected apart, in the order of their steps."""
    if len(parts) == 1:
        return parts[0]
    steps = np.concatenate([part.steps for part in parts])
    order = np.argsort(steps, kind="stable")
    values = np.concatenate([part.values for part in parts])[order]
    return Series(steps[order], values, sum(part.num_logged for part in parts))


def continued(before: Series, after: Series) -> Series:
    """Return a curve and what a restarted run logged after it, which replaces what it repeats."""
    if not len(before) or not len(after):
        return after if len(after) else before
    keep = before.steps < after.steps[0]
    return Series(
        np.concatenate([before.steps[keep], after.steps]),
        np.concatenate([before.values[keep], after.values]),
        before.num_logged + after.num_logged,
    )
