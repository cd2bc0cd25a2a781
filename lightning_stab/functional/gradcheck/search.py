"""The search for a step at which a line can be decided, cheap steps first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from lightning_stab.functional.gradcheck.branches import Branch, BranchWatch
from lightning_stab.functional.gradcheck.differences import Difference, difference
from lightning_stab.functional.gradcheck.lines import Line, Point, Slope
from lightning_stab.functional.gradcheck.verdicts import (
    TOLERANCE,
    Comparison,
    below_noise,
    compare,
    find_agreement,
)

_FIRST_STEPS = (1e-5, 1e-4, 1e-3, 1e-2)
_SPARE = 0.1  # part of the tolerance; an error below it needs no further step
_DECIDED = ("ok", "zero", "wrong")
_LARGEST, _SMALLEST = 1e-2, 1e-9

Comparisons = dict[int, Comparison]
"""A comparison for each loss that the line was checked for, by the loss's number."""


def check_line(
    line: Line, slopes: Mapping[int, Slope], point: Point, tolerance: float = TOLERANCE
) -> Comparisons:
    """Compare the gradient of each loss with the differences along one line.

    Two forward passes are enough where the loss is smooth and the gradient is right. Else a slow
    search sees the loss itself; where it finds no step without a kink, the smooth piece that the
    point lies on decides. Where runs along the line were other ones, what looks like a kink is
    ``unchecked``. The point receives the sums of its branches, and before anything is called
    ``wrong``, once, the noise of rounding.
    """
    found = _search(line, slopes, point, tolerance)
    accuses = any(comparison.verdict == "wrong" for comparison in found.values())
    if accuses and point.raise_noise(line.problem):
        return _search(line, slopes, point, tolerance)
    return found


def _search(line: Line, slopes: Mapping[int, Slope], point: Point, tolerance: float) -> Comparisons:
    with line:
        smooth, plain = (_Search(line, slopes, point, tolerance) for _ in range(2))
        settled = smooth.settle_quickly()
        if settled is not None:
            return settled
        found = plain.settle()
        if point.branches is not None:
            pieces = smooth.compare()
            found = {n: c if c.verdict in _DECIDED else pieces[n] for n, c in found.items()}
    if not (smooth.lost or plain.lost):
        return found
    return {
        n: replace(c, verdict="unchecked") if c.verdict == "kink" else c for n, c in found.items()
    }


class _Search:
    """The differences found so far on one line."""

    def __init__(
        self, line: Line, slopes: Mapping[int, Slope], point: Point, tolerance: float
    ) -> None:
        self.lost = False  # whether a run was not the recorded one; it does not count
        self._line, self._slopes, self._point, self._tolerance = line, slopes, point, tolerance
        self._found: dict[int, list[Difference]] = {loss: [] for loss in slopes}

    def settle_quickly(self) -> Comparisons | None:
        """Return comparisons if a few steps settle every loss; branches are replayed."""
        point, right = self._point, dict[int, Comparison]()
        sizes = [slope.size for slope in self._slopes.values() if slope.size > 0]
        room = _SPARE * self._tolerance * min(sizes, default=math.inf)
        enough = (step for step in _FIRST_STEPS if point.noise <= room * step)
        first = next(enough, _FIRST_STEPS[-1])  # so large that the noise does not matter
        for step in (first, 10 * first, 0.1 * first):
            self._add(step, branches=point.branches)
            right = self._each(find_agreement, self._tolerance)
            errors = [comparison.error for comparison in right.values()]
            if len(right) == len(self._slopes) and max(errors) <= _SPARE * self._tolerance:
                break
        settled = self._each(below_noise) | right
        return settled if len(settled) == len(self._slopes) else None

    def settle(self) -> Comparisons:
        """Go down the ladder, watch the branches, and stop when every loss is decided."""
        if self._point.branch_sums is None:
            watch = BranchWatch()
            self._line.losses_at(0.0, watch=watch)
            self._point.branch_sums = watch.sums
        step, found = _LARGEST, dict[int, Comparison]()
        while step > _SMALLEST:
            clean = self._add(step, self._point.branch_sums)
            found = self.compare()
            if all(comparison.verdict in _DECIDED for comparison in found.values()):
                break
            step *= 0.3 if clean else 0.1
        return found

    def compare(self) -> Comparisons:
        """Compare the gradient of each loss with the differences so far."""
        unknown = {
            loss: Comparison("kink", slope.value, math.nan, 0.0, 0.0)
            for loss, slope in self._slopes.items()
        }
        return unknown | self._each(compare, self._tolerance)

    def _add(
        self, step: float, sums: list[int] | None = None, branches: list[Branch] | None = None
    ) -> bool:
        """Go to both sides by one step; return whether it is known to be clean."""
        watches = [BranchWatch(), BranchWatch()] if sums is not None else [None, None]
        plus = self._line.losses_at(step, watch=watches[0], branches=branches)
        minus = self._line.losses_at(-step, watch=watches[1], branches=branches)
        here, noise = self._point.losses, self._point.noise
        clean = None
        if sums is not None:
            clean = all(watch is not None and watch.sums == sums for watch in watches)
        if not len(plus) == len(minus) == len(here):
            self.lost = True
        elif all(map(math.isfinite, plus + minus)):
            for loss, found in self._found.items():
                found.append(difference(plus[loss], here[loss], minus[loss], step, noise, clean))
        return bool(clean)

    def _each(self, function: Callable[..., Comparison | None], *options: float) -> Comparisons:
        """Return what a function says about each loss with differences, where it is not None."""
        said = {
            loss: function(found, self._slopes[loss].value, self._slopes[loss].size, *options)
            for loss, found in self._found.items()
            if found
        }
        return {loss: comparison for loss, comparison in said.items() if comparison is not None}
