"""The gain of an activation: the factor by which the NEXT layer's weights make up for it.

It comes from the catalogue by the name of a module's class, or by numerical quadrature from the
function itself, on a standard normal signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_stab.functional.activation_kinds import activation_of_class, value_of
from lightning_stab.functional.layer_kinds import is_norm

_REACH, _POINTS = 8.0, 1001  # of the grid, in standard deviations
_MIRROR_REACH = 5.0  # standard deviations within which the mirror identity has to hold
_FINEST, _SPACING, _SCALES = -5.0, 0.1, 101  # logarithms of the tabulated scales, -5 to 5


@dataclass(frozen=True)
class Preceding:
    """What a layer's input comes from: its name, its gain, and whether it is ReLU-like."""

    name: str
    gain: float = 1.0
    rectifier: bool = False


INPUT = Preceding("input")
LINEAR = Preceding("linear")
NORM = Preceding("norm")


def preceding_of(module: nn.Module) -> Preceding | None:
    """Return what ``module`` means to the next layer's weights, or None if it means nothing.

    A ReLU-like activation f has the gain ``1 / sqrt(E[f(z)^2])`` for a standard normal z, which
    keeps the second moment of the signal; any other has ``1 / f'(0)``, which keeps the linear
    signal around 0. A norm has gain 1. Dropout, pooling and reshaping return None. Activations are
    known by the names of their classes, so that a hand-written ``class Sigmoid(nn.Module)`` counts;
    an activation of torch without a rule has gain 1.

    Example:
        >>> preceding_of(nn.ReLU())
        Preceding(name='ReLU', gain=1.4142135623730951, rectifier=True)
        >>> preceding_of(nn.Sigmoid()).gain
        4.0
        >>> preceding_of(nn.Flatten()) is None
        True

    Sources: Glorot & Bengio 2010 (slope at 0); He et al. 2015 (second moment).
    """
    if is_norm(module):
        return NORM
    for base in type(module).__mro__:
        row = activation_of_class(base.__name__)
        if row is not None:
            gain = value_of(row.gain, row.numbers(_parameters(module))) or 1.0
            return Preceding(base.__name__, gain, row.rectifier)
        if base.__module__ == "torch.nn.modules.activation":
            return Preceding(base.__name__)
    return None


def _parameters(module: nn.Module) -> dict[str, Any]:
    """Return a module's attributes; a PReLU's slope is learned, and may have no values yet."""
    attributes = dict(vars(module))
    if isinstance(module, nn.PReLU) and not module.weight.is_meta:
        attributes["init"] = float(module.weight.detach().mean())
    return attributes


@dataclass(frozen=True, eq=False)
class ScalarFunction:
    """A function of one number, tabulated for quadrature over the standard normal.

    Args:
        function: for tensors in double precision.
    """

    function: Callable[[Tensor], Tensor]

    def mean(self) -> float:
        """Return E[f(z)] for a standard normal z."""
        z, weight = _grid()
        return float((weight * self.function(z)).sum())

    def variance(self, scale: float = 1.0) -> float:
        """Return the variance of f(scale z)."""
        z, weight = _grid()
        values = self.function(scale * z)
        return float((weight * (values - (weight * values).sum()) ** 2).sum())

    def second_moment(self) -> float:
        """Return E[f(z)^2]."""
        z, weight = _grid()
        return float((weight * self.function(z) ** 2).sum())

    def slope_square(self, scale: float = 1.0) -> float:
        """Return E[f'(scale z)^2], by central differences."""
        z, weight = _grid()
        step = 1e-4
        slope = (self.function(scale * z + step) - self.function(scale * z - step)) / (2 * step)
        return float((weight * slope**2).sum())

    @cached_property
    def mirror_slope(self) -> float | None:
        """The k of f(x) - f(-x) = k x, None where none holds; torch's rounding is allowed for.

        Example:
            >>> [ScalarFunction(f).mirror_slope for f in (torch.relu, torch.tanh)]
            [1.0, None]
        """
        x = torch.linspace(0.05, _MIRROR_REACH, 200, dtype=torch.float64)
        ratio = (self.function(x) - self.function(-x)) / x
        k = float(ratio.mean())
        steady = bool(((ratio - k).abs() < 1e-4 * max(abs(k), 1e-8)).all())
        return round(k, 6) if steady and k > 0.1 else None

    def is_bounded(self) -> bool:
        """Return whether the function saturates on both sides, as a sigmoid does."""
        ends = self.function(torch.tensor([-40.0, -20.0, 20.0, 40.0], dtype=torch.float64))
        flat = (ends[0] - ends[1]).abs() + (ends[3] - ends[2]).abs()
        return bool(flat <= 0.1 * (ends[3] - ends[0]).abs())

    @cached_property
    def mirror(self) -> ScalarFunction:
        """The odd function f(x) - f(-x), which a mirrored layer makes of a unit."""
        return ScalarFunction(lambda x: self.function(x) - self.function(-x))

    def balanced_gain(self, depth: int) -> float:
        """Return the gain that keeps signal and gradient closest to 1 over ``depth`` layers."""
        return self.balance(depth)[0]

    def balance(self, depth: int) -> tuple[float, float]:
        """Return the balanced gain, and how far signal or gradient go from 1 with it.

        The mean-field recursion of a centred signal, v' = g^2 Var f(sqrt(v) z), and of its
        gradient, which each layer multiplies by g^2 E[f'(sqrt(v) z)^2]; the gain with the
        smallest largest deviation, in logarithms, from both being 1.

        Source: Poole et al. 2016; Schoenholz et al. 2017.
        """
        step = torch.tensor([1e-4, -1e-4], dtype=torch.float64)
        above, below = self.function(step).tolist()
        slope_at_zero = float(above - below) / 2e-4
        center = 1 / max(abs(slope_at_zero), math.sqrt(self.variance()), 1e-6)
        tiny = 1e-30
        table = [  # log Var f and log E[f'^2]
            (math.log(max(self.variance(s), tiny)), math.log(max(self.slope_square(s), tiny)))
            for s in (math.exp(_FINEST + place * _SPACING) for place in range(_SCALES))
        ]
        candidates = [center * 1.02**exponent for exponent in range(-20, 41)]
        deviations = {gain: _imbalance(table, gain, min(depth, 200)) for gain in candidates}
        best = min(candidates, key=deviations.__getitem__)
        return best, deviations[best]


def _imbalance(table: list[tuple[float, float]], gain: float, depth: int) -> float:
    """Return the largest deviation of signal and gradient from 1; the table is by scale."""
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
