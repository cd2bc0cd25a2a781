"""Central differences on a ladder of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

LADDER = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Relative steps: from where truncation dominates to where rounding does."""


@dataclass(frozen=True)
class Difference:
    """What one step size says about a derivative.

    Args:
        step: the step h.
        slope: the estimate of the derivative.
        kink: half the difference of the two one-sided slopes; shrinks with h unless the point
            lies on a kink.
        noise: how much rounding may have added to ``slope``.
        clean: False when another branch was taken within the step.
    """

    step: float
    slope: float
    kink: float
    noise: float
    clean: bool = True


def central_difference(plus: float, minus: float, step: float) -> float:
    """Return (L(theta + h) - L(theta - h)) / 2h, whose error is of order h squared.

    Example:
        >>> round(central_difference(1.1**2, 0.9**2, 0.1), 12)
        2.0
    """
    return (plus - minus) / (2 * step)


def one_sided_gap(plus: float, here: float, minus: float, step: float) -> float:
    """Return half the difference between the slopes to the right and to the left.

    Of order h for a smooth function; constant at a kink.

    Example:
        >>> one_sided_gap(0.1, 0.0, 0.1, 0.1)
        1.0
    """
    return (plus - 2 * here + minus) / (2 * step)


def richardson(fine: float, coarse: float) -> float:
    """Return (4 D(h) - D(2h)) / 3, which cancels the error of order h squared.

    Example:
        >>> cube = lambda h: ((1 + h) ** 3 - (1 - h) ** 3) / (2 * h)
        >>> round(richardson(cube(0.1), cube(0.2)), 12)
        3.0
    """
    return (4 * fine - coarse) / 3


def difference(
    loss_at: Callable[[float], Sequence[float]], here: Sequence[float], step: float, noise: float
) -> list[Difference]:
    """Return the extrapolated derivative of each loss along a line, from four evaluations.

    Args:
        loss_at: the losses at a signed distance along the line.
        here: the losses at distance 0.
        step: the smaller of the two distances, h; the other is 2h.
        noise: the absolute rounding error of one loss value.
    """
    near = loss_at(step), loss_at(-step)
    far = loss_at(2 * step), loss_at(-2 * step)
    found = []
    for index, middle in enumerate(here):
        fine = central_difference(near[0][index], near[1][index], step)
        coarse = central_difference(far[0][index], far[1][index], 2 * step)
        gap = one_sided_gap(near[0][index], middle, near[1][index], step)
        slope = richardson(fine, coarse)
        found.append(Difference(step, slope, gap, 1.5 * noise / step))
    return found
