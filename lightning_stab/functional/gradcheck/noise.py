"""The rounding noise of a computed loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

ROUNDING = 2.0**-52
NUM_VALUES = 7
"""How many values the estimate takes; six differences are enough for an order of magnitude."""


def estimated_noise(values: Sequence[float]) -> float:
    """Return the noise level of a function sampled at equally spaced, very near points.

    The k-th difference of a smooth function goes to zero with the spacing; what is left is noise,
    with standard deviation sqrt((2k)! / (k!)^2) times that of one value. Never below half a unit in
    the last place of the largest value.

    Args:
        values: at least four function values, a spacing apart at which the function hardly moves.

    Reference: Moré and Wild, Estimating computational noise (2011).

    Example:
        >>> estimated_noise([1.0 + 1e-10 * (i % 2) for i in range(7)]) > 1e-11
        True
        >>> estimated_noise([1.0 + 1e-10 * i for i in range(7)]) < 1e-15
        True
    """
    floor = ROUNDING * max(abs(value) for value in values)
    levels: list[float] = []
    row = list(values)
    factor = 1.0
    for order in range(1, len(values) - 1):
        row = [after - before for before, after in pairwise(row)]
        factor *= order / (2.0 * (2 * order - 1))
        levels.append((factor * sum(d * d for d in row) / len(row)) ** 0.5)
    return max(floor, _settled(levels))


def _settled(levels: Sequence[float]) -> float:
    """Return the first level that the next two confirm within a factor of four, not too low."""
    for first, second, third in zip(levels, levels[1:], levels[2:], strict=False):
        if max(first, second, third) <= 4 * min(first, second, third):
            return max(first, second, third)
    return max(levels[-2:])
