"""The search for a step at which a line can be decided, cheap steps first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from lightning_stab.functional.gradcheck.branches import Branch, BranchWatch
from lightning_stab.functional.gradcheck.differences import Difference, difference
from lightning_stab.functional.gradcheck.lines import Line, Slope
from lightning_stab.functional.gradcheck.verdicts import (
    TOLERANCE,
    Comparison,
    below_noise,
    compare,
    find_agreement,
)

_T = TypeVar("_T")
_FIRST_STEPS = (1e-5, 1e-4, 1e-3, 1e-2)
_SPARE = 0.1  # part of the tolerance; an error below it needs no further step
_DECIDED = ("ok", "zero", "wrong")
_LARGEST, _SMALLEST = 1e-2, 1e-9

Comparisons = dict[int, Comparison]
"""A comparison for each loss that the line was checked for, by the loss's number."""


@dataclass
class Reference:
    """The unperturbed point, and what is known about it.

    Args:
        losses: the losses there.
        noise: the rounding error of a loss.
        tolerance: the relative error that is allowed.
        branches: the branches to replay, if there are any.
        branch_sums: the check sums of the branches taken there, once they were watched.
    """

    losses: list[float]
    noise: float
    tolerance: float = TOLERANCE
    branches: list[Branch] | None = None
    branch_sums: list[int] | None = None


def check_line(line: Line, slopes: Mapping[int, Slope], reference: Reference) -> Comparisons:
    """Compare the gradient of each loss with the differences along one line.

    Two forward passes are enough where the loss is smooth and the gradient is right. Else a slow
    search sees the loss itself; where it finds no step without a kink, the smooth piece that the
    point lies on decides. Where runs along the line lost their way, what looks like a kink is
    ``unchecked``.

    Args:
        line: through the reference point.
        slopes: what autograd says, by the number of the loss.
        reference: what is known about the point; receives the sums of the branches.
    """
    with line:
        smooth, plain = _Search(line, slopes, reference), _Search(line, slopes, reference)
        settled = smooth.settle_quickly()
        if settled is not None:
            return settled
        found = plain.settle()
        if reference.branches is not None:
            found = {n: c if c.verdict in _DECIDED else smooth.compare(n) for n, c in found.items()}
    if not (smooth.lost or plain.lost):
        return found
    return {
        n: replace(c, verdict="unchecked") if c.verdict == "kink" else c for n, c in found.items()
    }


class _Search:
    """The differences found so far on one line.

    Attributes:
        lost: whether a run was not the recorded one; it does not count.
    """

    def __init__(self, line: Line, slopes: Mapping[int, Slope], reference: Reference) -> None:
        self.lost = False
        self._line = line
        self._slopes = slopes
        self._reference = reference
        self._found: dict[int, list[Difference]] = {loss: [] for loss in slopes}

    def settle_quickly(self) -> Comparisons | None:
        """Return comparisons if a few steps settle every loss; branches are replayed."""
        reference = self._reference
        sizes = [slope.size for slope in self._slopes.values() if slope.size > 0]
        room = _SPARE * reference.tolerance * min(sizes, default=math.inf)
        enough = (step for step in _FIRST_STEPS if reference.noise <= room * step)
        first = next(enough, _FIRST_STEPS[-1])  # so large that the noise does not matter
        right: dict[int, Comparison | None] = {}
        for step in (first, 10 * first, 0.1 * first):
            self._add(step, branches=reference.branches)
            right = self._each(self._find_agreement)
            if all(c and c.error <= _SPARE * reference.tolerance for c in right.values()):
                break
        settled = {loss: right[loss] or self._below_noise(loss) for loss in right}
        known = {loss: each for loss, each in settled.items() if each is not None}
        return known if len(known) == len(self._slopes) else None

    def settle(self) -> Comparisons:
        """Go down the ladder, watch the branches, and stop when every loss is decided."""
        reference = self._reference
        if reference.branch_sums is None:
            watch = BranchWatch()
            self._line.losses_at(0.0, watch=watch)
            reference.branch_sums = watch.sums
        step = _LARGEST
        while step > _SMALLEST:
            clean = self._add(step, reference.branch_sums)
            found = self._each(self.compare)
            if all(comparison.verdict in _DECIDED for comparison in found.values()):
                break
            step *= 0.3 if clean else 0.1
        return self._each(self.compare)

    def compare(self, loss: int) -> Comparison:
        """Compare the gradient of a loss with the differences so far."""
        slope, found = self._slopes[loss], self._found[loss]
        if not found:
            return Comparison("kink", slope.value, math.nan, 0.0, 0.0)
        return compare(found, slope.value, slope.size, self._reference.tolerance)

    def _add(
        self, step: float, sums: list[int] | None = None, branches: list[Branch] | None = None
    ) -> bool:
        """Go to both sides by one step; return whether it is known to be clean."""
        watches = [BranchWatch(), BranchWatch()] if sums is not None else [None, None]
        plus = self._line.losses_at(step, watch=watches[0], branches=branches)
        minus = self._line.losses_at(-step, watch=watches[1], branches=branches)
        here = self._reference.losses
        clean = None
        if sums is not None:
            clean = all(watch is not None and watch.sums == sums for watch in watches)
        if not len(plus) == len(minus) == len(here):
            self.lost = True
        elif all(map(math.isfinite, plus + minus)):
            noise = self._reference.noise
            for loss, found in self._found.items():
                found.append(difference(plus[loss], here[loss], minus[loss], step, noise, clean))
        return bool(clean)

    def _each(self, function: Callable[[int], _T]) -> dict[int, _T]:
        return {loss: function(loss) for loss in self._slopes}

    def _find_agreement(self, loss: int) -> Comparison | None:
        slope, tolerance = self._slopes[loss], self._reference.tolerance
        found = self._found[loss]
        return find_agreement(found, slope.value, slope.size, tolerance) if found else None

    def _below_noise(self, loss: int) -> Comparison | None:
        slope, found = self._slopes[loss], self._found[loss]
        return below_noise(found, slope.value, slope.size) if found else None
