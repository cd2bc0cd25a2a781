"""What an activation does to a normal signal, by numerical quadrature of the function itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Law = Callable[[Tensor], Tensor]
_REACH = 8.0
_POINTS = 1001
_MIRROR_REACH = 5.0  # standard deviations within which the mirror identity has to hold


@dataclass(frozen=True, eq=False)
class Activation:
    """A function of one number, tabulated for quadrature over the standard normal.

    Args:
        law: the function, for tensors in double precision.
    """

    law: Law

    def mean(self, scale: float = 1.0) -> float:
        """Return E[f(scale z)] for a standard normal z."""
        z, weight = _grid()
        return float((weight * self.law(scale * z)).sum())

    def variance(self, scale: float = 1.0) -> float:
        """Return the variance of f(scale z)."""
        z, weight = _grid()
        values = self.law(scale * z)
        return float((weight * (values - (weight * values).sum()) ** 2).sum())

    def second_moment(self) -> float:
        """Return E[f(z)^2]."""
        z, weight = _grid()
        return float((weight * self.law(z) ** 2).sum())

    def slope_square(self, scale: float = 1.0) -> float:
        """Return E[f'(scale z)^2], by central differences."""
        z, weight = _grid()
        step = 1e-4
        slope = (self.law(scale * z + step) - self.law(scale * z - step)) / (2 * step)
        return float((weight * slope**2).sum())

    def slope_at_zero(self) -> float:
        """Return f'(0), by a central difference."""
        step = torch.tensor([1e-4, -1e-4], dtype=torch.float64)
        above, below = self.law(step).tolist()
        return float((above - below) / 2e-4)

    def mirror_slope(self) -> float | None:
        """Return k if f(x) - f(-x) = k x holds, else None; torch's rounding is allowed for.

        Example:
            >>> Activation(torch.relu).mirror_slope(), Activation(torch.tanh).mirror_slope()
            (1.0, None)
        """
        x = torch.linspace(0.05, _MIRROR_REACH, 200, dtype=torch.float64)
        ratio = (self.law(x) - self.law(-x)) / x
        k = float(ratio.mean())
        steady = bool(((ratio - k).abs() < 1e-4 * max(abs(k), 1e-8)).all())
        return round(k, 6) if steady and k > 0.1 else None

    def bounded(self) -> bool:
        """Return whether the function saturates on both sides, as a sigmoid does."""
        ends = self.law(torch.tensor([-40.0, -20.0, 20.0, 40.0], dtype=torch.float64))
        flat = (ends[0] - ends[1]).abs() + (ends[3] - ends[2]).abs()
        return bool(flat <= 0.1 * (ends[3] - ends[0]).abs())

    def balanced_gain(self, depth: int) -> float:
        """Return the gain that keeps signal and gradient closest to 1 over ``depth`` layers.

        The mean-field recursion of a centred signal, v' = g^2 Var f(sqrt(v) z), and of its
        gradient, which each layer multiplies by g^2 E[f'(sqrt(v) z)^2]; the gain with the
        smallest largest deviation, in logarithms, from both being 1.

        Source: Poole et al. 2016; Schoenholz et al. 2017.
        """
        around = 1 / max(abs(self.slope_at_zero()), math.sqrt(self.variance()), 1e-6)
        table = self._table()
        candidates = [around * 1.02**exponent for exponent in range(-20, 41)]
        return min(candidates, key=lambda gain: _imbalance(table, gain, min(depth, 200)))

    def _table(self) -> list[tuple[float, float]]:
        """Return log Var f and log E[f'^2] at the scales that `_place` counts."""
        scales = [math.exp(_FINEST + place * _SPACING) for place in range(_SCALES)]
        tiny = 1e-30
        return [
            (math.log(max(self.variance(s), tiny)), math.log(max(self.slope_square(s), tiny)))
            for s in scales
        ]


_FINEST, _SPACING, _SCALES = -5.0, 0.1, 101  # logarithms of the tabulated scales, -5 to 5


def _imbalance(table: list[tuple[float, float]], gain: float, depth: int) -> float:
    log_variance, gradient, worst = 0.0, 0.0, 0.0
    for _ in range(depth):
        place = min(max((log_variance / 2 - _FINEST) / _SPACING, 0.0), _SCALES - 1.001)
        low, part = int(place), place - int(place)
        variance, slope = (
            (1 - part) * a + part * b for a, b in zip(table[low], table[low + 1], strict=True)
        )
        gradient += 2 * math.log(gain) + slope
        log_variance = 2 * math.log(gain) + variance
        worst = max(worst, abs(log_variance), abs(gradient))
    return worst


def _grid() -> tuple[Tensor, Tensor]:
    z = torch.linspace(-_REACH, _REACH, _POINTS, dtype=torch.float64)
    density = torch.exp(-z * z / 2)
    return z, density / density.sum()
