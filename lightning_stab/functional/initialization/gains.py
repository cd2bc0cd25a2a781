"""The gain of an activation: the factor by which the NEXT layer's weights make up for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from lightning_stab.functional.layer_kinds import is_norm

# 1 / sqrt(E[f(z)^2]) for z ~ N(0, 1). Two exceptions. Softplus takes the ReLU's gain, because it
# turns into a ReLU where its input is large, and its own gain would let the slope 1/2 win.
# ReLU6 also takes it: the cap at 6 standard deviations changes nothing.
RECTIFIER_GAINS = {
    "ReLU": math.sqrt(2),
    "ReLU6": math.sqrt(2),
    "Softplus": math.sqrt(2),
    "GELU": 1.5335304411955355,
    "QuickGELU": 1.5394587622988314,
    "SiLU": 1.6765324703310913,
    "Swish": 1.6765324703310913,
    "Mish": 1.4868475812732085,
    "Hardswish": 1.736657212766124,
    "ELU": 1.2451983007007068,
    "CELU": 1.2451983007007068,
}
# 1 / f'(0): Xavier's derivation takes the activation as linear around 0.
SLOPE_GAINS = {
    "Sigmoid": 4.0,
    "Hardsigmoid": 6.0,
    "LogSigmoid": 2.0,
    "Tanh": 1.0,
    "Hardtanh": 1.0,
    "Softsign": 1.0,
    "SELU": 1.0,  # 1 by construction: E[f(z)^2] is 1
}
LEAKY = ("LeakyReLU", "PReLU", "RReLU")


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
    signal around 0. A norm has gain 1, whatever stands before it. Dropout, pooling and reshaping
    return None. Activations are known by the names of their classes, so that a hand-written
    ``class Sigmoid(nn.Module)`` counts; an activation of torch without a rule has gain 1.

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
        name = base.__name__
        if name in LEAKY:
            return Preceding(name, leaky_gain(_negative_slope(module)), rectifier=True)
        if name in RECTIFIER_GAINS:
            return Preceding(name, RECTIFIER_GAINS[name], rectifier=True)
        if name in SLOPE_GAINS:
            return Preceding(name, SLOPE_GAINS[name])
        if base.__module__ == "torch.nn.modules.activation":
            return Preceding(name)
    return None


def leaky_gain(negative_slope: float) -> float:
    """Return the gain of a leaky ReLU, ``sqrt(2 / (1 + a^2))``.

    Example:
        >>> leaky_gain(0.0) == math.sqrt(2), leaky_gain(1.0)
        (True, 1.0)
    """
    return math.sqrt(2 / (1 + negative_slope**2))


def _negative_slope(module: nn.Module) -> float:
    if isinstance(module, nn.RReLU):
        return (module.lower + module.upper) / 2
    if isinstance(module, nn.PReLU):
        start = 0.25  # where torch starts it, for weights that have no values yet
        return start if module.weight.is_meta else float(module.weight.detach().mean())
    slope = getattr(module, "negative_slope", 0.01)
    return slope if isinstance(slope, (int, float)) else 0.01
