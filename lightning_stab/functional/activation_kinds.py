"""Where each activation function is flat: the bounds beyond which a unit learns next to nothing.

A function is called flat where its derivative is below `FLAT`, 2 %, of the largest value that the
derivative takes anywhere. For every common activation that is a half-line on one side or on both,
so two comparisons with the pre-activation decide, without autograd.

A flat side is *dead* where the function also stays near 0, as a ReLU does below 0: nothing leaves
the unit and nothing comes back. It is *saturated* where the function stays at another value, as a
sigmoid does at 0 and at 1, or an ELU at -alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lightning_stab.arguments import one_of

FLAT = 0.02
_LOGIT = math.log((1 - FLAT) / FLAT)  # where a logistic function has the value 1 - FLAT
_SIGMOID = 2 * math.atanh(math.sqrt(1 - FLAT))
# Roots of |f'(z)| = FLAT max |f'|, the outermost on the negative side. Nearer to 0 each of these
# derivatives changes its sign, and is small there too: no unit stays at such a point.
_GELU = -2.739218580385631
_SILU = -5.252756024036627
_MISH = -5.274046787068639


@dataclass(frozen=True)
class ActivationKind:
    """An activation function, and the pre-activations at which it is flat.

    Attributes:
        name: the function's name.
        dead_below: the unit gives about 0 and learns nothing for ``z <= dead_below``; None where
            the function has no such side.
        saturated_below: the function is flat at another value for ``z <= saturated_below``.
        saturated_above: it is flat for ``z >= saturated_above``.
    """

    name: str
    dead_below: float | None = None
    saturated_below: float | None = None
    saturated_above: float | None = None

    @property
    def can_die(self) -> bool:
        """Whether a unit can be dead."""
        return self.dead_below is not None

    @property
    def can_saturate(self) -> bool:
        """Whether an entry can be saturated."""
        return self.saturated_below is not None or self.saturated_above is not None


def activation_kind(name: str, *parameters: float) -> ActivationKind:
    """Return where an activation is flat.

    ========================================= ====================== ===========================
    kinds                                     dead                   saturated
    ========================================= ====================== ===========================
    ``relu``, ``threshold``, ``relu6``        at or below the kink   ``relu6``: z >= 6
    ``hardswish``                             z <= -3                --
    ``gelu``, ``silu``, ``mish``              z <= -2.74 -5.25 -5.27 --
    ``softplus``                              z <= -3.89 / beta      --
    ``sigmoid``, ``tanh``, ``softsign``       --                     abs(z) >= 5.29 2.64 6.07
    ``hardsigmoid``, ``hardtanh``             --                     at and beyond the kinks
    ``elu``, ``celu``, ``selu``               --                     z <= -3.91 (alpha 1)
    ``logsigmoid``                            --                     z >= 3.89
    ``leaky_relu``, ``prelu``, ``rrelu``      --                     --
    ``softshrink``, ``hardshrink``, ...       --                     --
    ========================================= ====================== ===========================

    A leaky ReLU of slope 0 is a ReLU. A ``hardtanh`` with the lower bound 0 is dead there.

    Args:
        name: the function's name in torch.
        parameters: what the function takes besides its input, in torch's order; what is left out
            has torch's default.

    Raises:
        InvalidArgumentError: for an unknown name.

    Example:
        >>> activation_kind("relu")
        ActivationKind(name='relu', dead_below=0.0, saturated_below=None, saturated_above=None)
        >>> round(activation_kind("tanh").saturated_above, 3)
        2.644
        >>> activation_kind("hardtanh", -2.0, 2.0).saturated_above
        2.0

    Source: the 2 % bound on the derivative is this suite's; the functions are torch's.
    """
    return _KINDS[one_of("activation", name, _KINDS)](name, *parameters)


def tanh_by_output() -> ActivationKind:
    """Return the kind of a tanh of which only the output is seen, with bounds on the output.

    Example:
        >>> round(tanh_by_output().saturated_above, 4)
        0.9899
    """
    bound = math.sqrt(1 - FLAT)
    return ActivationKind("tanh", saturated_below=-bound, saturated_above=bound)


def _never(name: str, *_: float) -> ActivationKind:
    return ActivationKind(name)


def _dead(bound: float) -> Callable[..., ActivationKind]:
    return lambda name, *_: ActivationKind(name, dead_below=bound)


def _both_sides(bound: float) -> Callable[..., ActivationKind]:
    return lambda name, *_: ActivationKind(name, None, -bound, bound)


def _threshold(name: str, bound: float = 0.0, value: float = 0.0, *_: float) -> ActivationKind:
    """Values at or below the bound become ``value``; the unit is dead there if that is 0."""
    return ActivationKind(name, bound) if value == 0 else ActivationKind(name, None, bound)


def _leaky(name: str, slope: float = 0.01, *_: float) -> ActivationKind:
    return ActivationKind(name, dead_below=0.0 if slope == 0 else None)


def _softplus(name: str, beta: float = 1.0, *_: float) -> ActivationKind:
    return ActivationKind(name, dead_below=-_LOGIT / beta)


def _hardtanh(name: str, low: float = -1.0, high: float = 1.0, *_: float) -> ActivationKind:
    if low == 0:
        return ActivationKind(name, dead_below=0.0, saturated_above=high)
    return ActivationKind(name, None, low, high)


def _elu(name: str, alpha: float = 1.0, *_: float) -> ActivationKind:
    """The slope is alpha e^z below 0 and 1 above; with a small alpha all of z < 0 is flat."""
    largest = max(1.0, abs(alpha))
    root = math.log(FLAT * largest / abs(alpha)) if alpha else 0.0
    return ActivationKind(name, saturated_below=min(root, 0.0))


def _celu(name: str, alpha: float = 1.0, *_: float) -> ActivationKind:
    return ActivationKind(name, saturated_below=alpha * math.log(FLAT))


_KINDS: dict[str, Callable[..., ActivationKind]] = {
    "relu": _dead(0.0),
    "relu6": lambda name: ActivationKind(name, dead_below=0.0, saturated_above=6.0),
    "threshold": _threshold,
    "hardswish": _dead(-3.0),
    "gelu": _dead(_GELU),
    "silu": _dead(_SILU),
    "mish": _dead(_MISH),
    "softplus": _softplus,
    "sigmoid": _both_sides(_SIGMOID),
    "tanh": _both_sides(_SIGMOID / 2),
    "softsign": _both_sides(1 / math.sqrt(FLAT) - 1),
    "hardsigmoid": _both_sides(3.0),
    "hardtanh": _hardtanh,
    "elu": _elu,
    "celu": _celu,
    "selu": lambda name: ActivationKind(name, saturated_below=math.log(FLAT)),
    "logsigmoid": lambda name: ActivationKind(name, saturated_above=_LOGIT),
    "leaky_relu": _leaky,
    "prelu": _never,
    "rrelu": _never,
    "softshrink": _never,
    "hardshrink": _never,
    "tanhshrink": _never,
}
KINDS = tuple(_KINDS)
