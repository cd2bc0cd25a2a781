"""Central differences on a ladder of steps, their extrapolation, and the noise of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_ROUNDING = 2.0**-52
NUM_VALUES = 7
"""How many values `estimate_noise` takes; six differences give an order of magnitude."""


@dataclass(frozen=True)
class Difference:
    """What one step size h, or a pair of them, says about a derivative.

    Args:
        gap: half the difference of the two one-sided slopes; of order h for a smooth function,
            constant on a kink.
        noise: how much rounding may have added to ``slope``.
        clean: False when another branch was taken within the step, None where it was not watched.
    """

    step: float
    slope: float
    gap: float
    noise: float
    clean: bool | None = None


def central_difference(plus: float, minus: float, step: float) -> float:
    """Return (L(theta + h) - L(theta - h)) / 2h, whose error is of order h squared.

    Example:
        >>> round(central_difference(1.1**2, 0.9**2, 0.1), 12)
        2.0
    """
    return (plus - minus) / (2 * step)


def one_sided_gap(plus: float, here: float, minus: float, step: float) -> float:
    """Return half the difference between the slopes to the right and to the left.

    Example:
        >>> one_sided_gap(0.1, 0.0, 0.1, 0.1)
        1.0
    """
    return (plus - 2 * here + minus) / (2 * step)


def richardson(fine: float, coarse: float, ratio: float = 2.0) -> float:
    """Return (r^2 D(h) - D(rh)) / (r^2 - 1), which cancels the error of order h squared.

    Example:
        >>> cube = lambda h: ((1 + h) ** 3 - (1 - h) ** 3) / (2 * h)
        >>> round(richardson(cube(0.1), cube(0.2)), 12)
        3.0
    """
    square = ratio * ratio
    return (square * fine - coarse) / (square - 1)


def difference(
    plus: float, here: float, minus: float, step: float, noise: float, clean: bool | None = None
) -> Difference:
    """Return the plain central difference of the losses at three points, each with its noise."""
    slope, gap = central_difference(plus, minus, step), one_sided_gap(plus, here, minus, step)
    return Difference(step, slope, gap, noise / step, clean)


def extrapolate(differences: Sequence[Difference]) -> list[Difference]:
    """Return the Richardson estimate of each neighbouring pair, the largest step first."""
    estimates = []
    for coarse, fine in pairwise(sorted(differences, key=lambda each: -each.step)):
        ratio = coarse.step / fine.step
        known = coarse.clean is not None and fine.clean is not None
        estimates.append(
            Difference(
                fine.step,
                richardson(fine.slope, coarse.slope, ratio),
                fine.gap,
                richardson(fine.noise, -coarse.noise, ratio),
                coarse.clean and fine.clean if known else None,
            )
        )
    return estimates


def estimate_noise(values: Sequence[float]) -> float:
    """Return the noise level of a function sampled at equally spaced, very near points.

    The k-th difference of a smooth function goes to zero with the spacing; what is left is noise,
    with standard deviation sqrt((2k)! / (k!)^2) times that of one value. Never below half a unit in
    the last place of the largest value. The first level counts that the next two confirm within a
    factor of four. There must be at least four values.

    Reference: Moré and Wild, Estimating computational noise (2011).

    Example:
        >>> estimate_noise([1.0 + 1e-10 * (i % 2) for i in range(7)]) > 1e-11
        True
        >>> estimate_noise([1.0 + 1e-10 * i for i in range(7)]) < 1e-15
        True
    """
    floor = _ROUNDING * max(abs(value) for value in values)
    levels: list[float] = []
    row = list(values)
    factor = 1.0
    for order in range(1, len(values) - 1):
        row = [after - before for before, after in pairwise(row)]
        factor *= order / (2.0 * (2 * order - 1))
        levels.append((factor * sum(d * d for d in row) / len(row)) ** 0.5)
    settled = (
        max(three)
        for three in zip(levels, levels[1:], levels[2:], strict=False)
        if max(three) <= 4 * min(three)
    )
    return max(floor, next(settled, max(levels[-2:])))
