"""The search for a step at which a line can be judged, cheap steps first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lightning_stab.functional.gradcheck.branches import Branches
from lightning_stab.functional.gradcheck.differences import Difference, difference
from lightning_stab.functional.gradcheck.frozen import Held
from lightning_stab.functional.gradcheck.lines import Line, Slope
from lightning_stab.functional.gradcheck.verdicts import (
    TOLERANCE,
    Judgement,
    agreeing,
    drowned,
    judge,
)

_T = TypeVar("_T")
_FIRST_STEPS = (1e-5, 1e-4, 1e-3, 1e-2)
_COMFORT = 0.1  # part of the tolerance; an error below it needs no further step
_SURE = ("ok", "zero", "wrong")
_LARGEST, _SMALLEST = 1e-2, 1e-9

Judgements = dict[int, Judgement]
"""A judgement for each loss that the line was asked about, by the loss's number."""


@dataclass
class Reference:
    """The unperturbed point, and what is known about it.

    Args:
        losses: the losses there.
        noise: the rounding error of a loss.
        tolerance: the relative error that is allowed.
        branches: the branches taken there, once somebody has asked.
        held: the branches to hold fast, if there are any.
    """

    losses: list[float]
    noise: float
    tolerance: float = TOLERANCE
    branches: list[int] | None = None
    held: list[Held] | None = None


def check_line(line: Line, slopes: Mapping[int, Slope], reference: Reference) -> Judgements:
    """Judge what the gradient of each loss says about one line.

    Two forward passes are enough where the loss is smooth and the gradient is right.

    Args:
        line: through the reference point.
        slopes: what autograd says, by the number of the loss.
        reference: what is known about the point; learns the branches.
    """
    with line:
        smooth = _Search(line, slopes, reference)
        settled = smooth.quick()
        return settled or smooth.confirmed(_Search(line, slopes, reference).slow())


class _Search:
    """The differences seen so far on one line."""

    def __init__(self, line: Line, slopes: Mapping[int, Slope], reference: Reference) -> None:
        self._line = line
        self._slopes = slopes
        self._reference = reference
        self._found: dict[int, list[Difference]] = {loss: [] for loss in slopes}

    def quick(self) -> Judgements | None:
        """Return judgements if a few steps settle every loss; branches are held fast."""
        right: dict[int, Judgement | None] = {}
        comfort = _COMFORT * self._reference.tolerance
        for step in self._quick_steps():
            self._add(step, held=self._reference.held)
            right = self._each(self._agreeing)
            if all(judgement and judgement.error <= comfort for judgement in right.values()):
                break
        limited = {loss: right[loss] or self._drowned(loss) for loss in right}
        settled = {loss: each for loss, each in limited.items() if each is not None}
        return settled if len(settled) == len(self._slopes) else None

    def confirmed(self, slow: Judgements) -> Judgements:
        """Return the judgements of the slow search, or what held branches say where it cannot.

        The slow search sees the loss itself. Where it finds no step without a kink, the smooth
        piece that the point lies on decides.
        """
        if self._reference.held is None:
            return slow
        smooth = self._each(self._judged)
        return {
            loss: judgement if judgement.verdict in _SURE else smooth[loss]
            for loss, judgement in slow.items()
        }

    def slow(self) -> Judgements:
        """Go down the ladder, look at the branches, and stop when every loss is settled."""
        reference = self._reference
        if reference.branches is None:
            watched = Branches()
            self._line.losses_at(0.0, branches=watched)
            reference.branches = watched.sums
        step = _LARGEST
        while step > _SMALLEST:
            clean = self._add(step, reference.branches)
            judgements = self._each(self._judged)
            if all(judgement.verdict in _SURE for judgement in judgements.values()):
                break
            step *= 0.3 if clean else 0.1
        return self._each(self._judged)

    def _quick_steps(self) -> Sequence[float]:
        """Return three steps, the first one large enough for the noise not to matter."""
        sizes = [slope.size for slope in self._slopes.values() if slope.size > 0]
        room = _COMFORT * self._reference.tolerance * min(sizes, default=math.inf)
        first = next(
            (step for step in _FIRST_STEPS if self._reference.noise <= room * step),
            _FIRST_STEPS[-1],
        )
        return first, 10 * first, 0.1 * first

    def _add(
        self, step: float, branches: list[int] | None = None, held: list[Held] | None = None
    ) -> bool:
        """Look at both sides at one step; return whether it is known to be clean."""
        sides = [Branches(), Branches()] if branches is not None else [None, None]
        plus = self._line.losses_at(step, branches=sides[0], held=held)
        minus = self._line.losses_at(-step, branches=sides[1], held=held)
        here = self._reference.losses
        clean = None
        if branches is not None:
            clean = all(side is not None and side.sums == branches for side in sides)
        if len(plus) == len(minus) == len(here) and all(map(math.isfinite, plus + minus)):
            noise = self._reference.noise
            for loss, differences in self._found.items():
                differences.append(
                    difference(plus[loss], here[loss], minus[loss], step, noise, clean)
                )
        return bool(clean)

    def _each(self, function: Callable[[int], _T]) -> dict[int, _T]:
        return {loss: function(loss) for loss in self._slopes}

    def _agreeing(self, loss: int) -> Judgement | None:
        slope, tolerance = self._slopes[loss], self._reference.tolerance
        found = self._found[loss]
        return agreeing(found, slope.value, slope.size, tolerance) if found else None

    def _drowned(self, loss: int) -> Judgement | None:
        slope, found = self._slopes[loss], self._found[loss]
        return drowned(found, slope.value, slope.size) if found else None

    def _judged(self, loss: int) -> Judgement:
        slope, found = self._slopes[loss], self._found[loss]
        if not found:
            return Judgement("kink", slope.value, math.nan, 0.0, 0.0)
        return judge(found, slope.value, slope.size, self._reference.tolerance)
