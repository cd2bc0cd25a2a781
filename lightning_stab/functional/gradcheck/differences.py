"""Central differences on a ladder of steps, and their extrapolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Difference:
    """What one step size, or a pair of them, says about a derivative.

    Args:
        step: the step h.
        slope: the estimate of the derivative.
        gap: half the difference of the two one-sided slopes; of order h for a smooth function,
            constant on a kink.
        noise: how much rounding may have added to ``slope``.
        clean: False when another branch was taken within the step, None when nobody looked.
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
    """Return the plain central difference at one step.

    Args:
        plus: the loss at +h.
        here: the loss at 0.
        minus: the loss at -h.
        step: h.
        noise: the rounding error of one loss.
        clean: whether the same branches were taken at all three points, if known.
    """
    return Difference(
        step,
        central_difference(plus, minus, step),
        one_sided_gap(plus, here, minus, step),
        noise / step,
        clean,
    )


def extrapolated(differences: Sequence[Difference]) -> list[Difference]:
    """Return the Richardson estimate of each neighbouring pair, the largest step first."""
    ordered = sorted(differences, key=lambda each: -each.step)
    return [_extrapolate(coarse, fine) for coarse, fine in pairwise(ordered)]


def _extrapolate(coarse: Difference, fine: Difference) -> Difference:
    ratio = coarse.step / fine.step
    square = ratio * ratio
    clean = None if coarse.clean is None or fine.clean is None else coarse.clean and fine.clean
    return Difference(
        fine.step,
        richardson(fine.slope, coarse.slope, ratio),
        fine.gap,
        (square * fine.noise + coarse.noise) / (square - 1),
        clean,
    )
