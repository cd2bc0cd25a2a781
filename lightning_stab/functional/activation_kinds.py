"""The catalogue of activation functions: one row holds all that the package knows of one.

An activation may be met as a module, as a function, as an operator of a recorded forward pass, or
by its name: it is looked up here. To add one is to add a row.

A function is called *flat* where its derivative is below `FLAT`, 2 %, of the largest value that the
derivative takes anywhere. For every common activation that is a half-line on one side or on both,
so two comparisons with the pre-activation decide, without autograd. A flat side is *dead* where the
function also stays near 0, as a ReLU does below 0: nothing leaves the unit and nothing comes back.
It is *saturated* where the function stays at another value, as a sigmoid does at 0 and at 1.

The *gain* is the factor by which the next layer's weights make up for the activation:
``1 / sqrt(E[f(z)^2])`` with z ~ N(0, 1) for one that is like a ReLU, ``1 / f'(0)`` for any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from lightning_stab.arguments import one_of

FLAT = 0.02
_LOGIT = math.log((1 - FLAT) / FLAT)  # where a logistic function has the value 1 - FLAT
_SIGMOID = 2 * math.atanh(math.sqrt(1 - FLAT))
_SOFTSIGN = 1 / math.sqrt(FLAT) - 1

# A number, or a function of the activation's parameters; None where there is nothing to say.
Column = float | Callable[..., float | None] | None


@dataclass(frozen=True)
class Activation:
    """A row of the catalogue.

    Attributes:
        name: the function's name in torch.
        module: its module; None where torch has none.
        aliases: other names of its modules and functions.
        operator: the aten operator that computes it, where that has another name.
        when: which numbers the operator takes besides its input, where it computes several
            activations.
        parameters: what the function takes besides its input, in its order, with torch's defaults;
            modules have attributes of these names.
        dead_below: the unit gives about 0 and learns nothing at or below it.
        saturated_below: the function is flat at another value at or below it.
        saturated_above: it is flat at or above it.
        gain: None where none is known. One that depends on parameters is the quadrature of the
            very function where a batch shows it.
        rectifier: whether it is like a ReLU, so that Kaiming's scheme is the plain choice.
        balanced_gains: pairs of a depth and the gain, measured, at which signal and gradient
            survive best in a net of so many layers.
        range: the bounds of its results, where they are known and do not depend on parameters.
        approximates: another activation whose flat sides and name it shares.
    """

    name: str
    module: type[nn.Module] | None = None
    _: KW_ONLY
    aliases: tuple[str, ...] = ()
    operator: str = ""
    when: Callable[..., bool] | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    dead_below: Column = None
    saturated_below: Column = None
    saturated_above: Column = None
    gain: Column = None
    rectifier: bool = False
    balanced_gains: tuple[tuple[int, float], ...] = ()
    range: tuple[float, float] | None = None
    approximates: str = ""

    @property
    def class_name(self) -> str:
        """The name of its module's class."""
        return self.name if self.module is None else self.module.__name__

    def numbers(self, given: Mapping[str, Any]) -> list[float]:
        """Return the parameters; what is not given as a plain number has its default."""
        values = [(given.get(name, default), default) for name, default in self.parameters.items()]
        return [float(v) if isinstance(v, (int, float)) else default for v, default in values]


@dataclass(frozen=True)
class ActivationKind:
    """An activation with its parameters, and the pre-activations at which it is flat.

    The attributes are those of `Activation`, None where the function has no such side.
    """

    name: str
    dead_below: float | None = None
    saturated_below: float | None = None
    saturated_above: float | None = None

    @property
    def can_be_dead(self) -> bool:
        """Whether a unit can be dead."""
        return self.dead_below is not None

    @property
    def can_saturate(self) -> bool:
        """Whether an entry can be saturated."""
        return self.saturated_below is not None or self.saturated_above is not None


CATALOGUE: dict[str, Activation] = {}
# fmt: off
ActivationName = Literal[  # what users may ask for by name, for editors and type checkers
    "celu", "elu", "expit", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "identity", "leaky_relu", "linear", "log_sigmoid", "logsigmoid", "mish", "prelu", "relu",
    "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "swish",
    "tanh", "tanhshrink", "threshold",
]
# fmt: on
# Made of the catalogue. FUNCTIONS has every spelling in torch, methods and in-place ones included;
# MODULES make one with torch's defaults.
FUNCTIONS: dict[Any, str] = {}
MODULES: dict[str, Callable[[], nn.Module]] = {}
_CLASSES: dict[str, str] = {}  # by the names of classes in lower case


def register_activation(row: Activation) -> None:
    """Add a row to the catalogue, or replace the one of the same name."""
    CATALOGUE[row.name] = row
    for name in (row.name, *row.aliases):
        _CLASSES[name.replace("_", "")] = row.name
        for place in (functional, torch, torch.Tensor, torch.special):
            for spelling in (name, name + "_"):
                function = getattr(place, spelling, None)
                if callable(function):
                    FUNCTIONS[function] = row.name
        if row.module is not None:
            MODULES[name] = partial(row.module, **row.parameters)


def activation_of_class(class_name: str, *, exactly: bool = False) -> Activation | None:
    """Return the activation that a module of this class is, as far as its name tells.

    So a hand-written ``Swish`` or a ``GELUActivation`` counts; approximations of GELU are GELU.

    Args:
        class_name: the name of the class.
        exactly: whether affixes such as ``New...`` and ``...Activation`` make it another one.

    Example:
        >>> activation_of_class("FastGELUActivation").name
        'gelu'
        >>> activation_of_class("FastGELUActivation", exactly=True) is None
        True
    """
    name = class_name.lower()
    if not exactly:
        name = name.removesuffix("activation")
        for prefix in ("new", "fast", "quick"):
            name = name if name in _CLASSES else name.removeprefix(prefix)
    return CATALOGUE[_CLASSES[name]] if name in _CLASSES else None


def activation_of_operator(name: str, numbers: Sequence[float] | None = ()) -> Activation | None:
    """Return the activation that an aten operator computes.

    Args:
        name: the operator's name without namespace, such as ``relu``, in any of its variants.
        numbers: what it takes besides its input; trailing ones may be missing. None asks for any
            activation that the operator can compute.

    Example:
        >>> [activation_of_operator("hardtanh", numbers).name for numbers in ((), (0, 6))]
        ['hardtanh', 'relu6']
    """
    name = name.removesuffix("_functional").removesuffix("_")
    rows = (row for row in CATALOGUE.values() if name == (row.operator or row.name))
    fits = (row for row in rows if numbers is None or row.when is None or row.when(*numbers))
    return next(fits, None)


def activation_kind(name: str, *parameters: float) -> ActivationKind:
    """Return where an activation is flat.

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
    row = CATALOGUE[one_of("activation", name, CATALOGUE)]
    row = CATALOGUE[row.approximates or name]
    numbers = row.numbers(dict(zip(row.parameters, parameters, strict=False)))
    bounds = (row.dead_below, row.saturated_below, row.saturated_above)
    return ActivationKind(row.name, *(value_of(bound, numbers) for bound in bounds))


def value_of(column: Column, numbers: Sequence[float]) -> float | None:
    """Return what a column of the catalogue says for these parameters."""
    return column(*numbers) if callable(column) else column


def tanh_by_output() -> ActivationKind:
    """Return the kind of a tanh of which only the output is seen, with bounds on the output.

    Example:
        >>> round(tanh_by_output().saturated_above, 4)
        0.9899
    """
    bound = math.sqrt(1 - FLAT)
    return ActivationKind("tanh", saturated_below=-bound, saturated_above=bound)


def _flat_below_of_elu(alpha: float) -> float:
    """The slope is alpha e^z below 0 and 1 above; with a small alpha all of z < 0 is flat."""
    largest = max(1.0, abs(alpha))
    return min(math.log(FLAT * largest / abs(alpha)), 0.0) if alpha else 0.0


def _leaky_gain(slope: float) -> float:
    return math.sqrt(2 / (1 + slope**2))


_SQRT2 = math.sqrt(2)
# The dead sides of GELU, SiLU and Mish begin at roots of |f'(z)| = FLAT max |f'|, the outermost on
# the negative side. Nearer to 0 each of these derivatives changes its sign, and is small there too:
# no unit stays at such a point.
for _row in (
    Activation("relu", nn.ReLU, dead_below=0.0, gain=_SQRT2, rectifier=True, range=(0.0, math.inf)),
    # its gain is the ReLU's too: the cap at 6 standard deviations changes nothing
    Activation("relu6", nn.ReLU6, operator="hardtanh",
               when=lambda low=-1.0, high=1.0: (low, high) == (0.0, 6.0),
               dead_below=0.0, saturated_above=6.0, gain=_SQRT2, rectifier=True, range=(0.0, 6.0)),
    Activation("threshold", nn.Threshold, parameters={"threshold": 0.0, "value": 0.0},
               dead_below=lambda bound, value: bound if value == 0 else None,
               saturated_below=lambda bound, value: None if value == 0 else bound),
    Activation("leaky_relu", nn.LeakyReLU, parameters={"negative_slope": 0.01},
               dead_below=lambda slope: 0.0 if slope == 0 else None,
               gain=_leaky_gain, rectifier=True),
    Activation("prelu", nn.PReLU, operator="_prelu_kernel", parameters={"init": 0.25},
               gain=_leaky_gain, rectifier=True),
    Activation("rrelu", nn.RReLU, operator="rrelu_with_noise",
               parameters={"lower": 1 / 8, "upper": 1 / 3},
               gain=lambda lower, upper: _leaky_gain((lower + upper) / 2), rectifier=True),
    Activation("gelu", nn.GELU, dead_below=-2.739218580385631,
               gain=1.5335304411955355, rectifier=True),
    Activation("quick_gelu", approximates="gelu", gain=1.5394587622988314, rectifier=True),
    Activation("silu", nn.SiLU, aliases=("swish",), dead_below=-5.252756024036627,
               gain=1.6765324703310913, rectifier=True),
    Activation("mish", nn.Mish, dead_below=-5.274046787068639,
               gain=1.4868475812732085, rectifier=True),
    Activation("hardswish", nn.Hardswish, dead_below=-3.0,
               gain=1.736657212766124, rectifier=True),
    # its gain is the ReLU's, into which it turns where its input is large: its own would let the
    # slope 1/2 win
    Activation("softplus", nn.Softplus, parameters={"beta": 1.0},
               dead_below=lambda beta: -_LOGIT / beta,
               gain=_SQRT2, rectifier=True, range=(0.0, math.inf)),
    # its gain is 1 by construction: E[f(z)^2] is 1
    Activation("selu", nn.SELU, operator="elu",
               when=lambda alpha=1.0, scale=1.0, *_: math.isclose(scale, 1.0507, rel_tol=1e-4),
               saturated_below=math.log(FLAT),
               gain=1.0, balanced_gains=((1, 1.0), (20, 1.0), (50, 0.93), (100, 0.85))),
    # the gains of ELU and CELU are those for alpha 1
    Activation("elu", nn.ELU, parameters={"alpha": 1.0},
               when=lambda *numbers: set(numbers) <= {1.0}, saturated_below=_flat_below_of_elu,
               gain=1.2451983007007068, rectifier=True, balanced_gains=((1, 1.245),)),
    Activation("celu", nn.CELU, parameters={"alpha": 1.0},
               when=lambda *numbers: set(numbers) <= {1.0},
               saturated_below=lambda alpha: alpha * math.log(FLAT),
               gain=1.2451983007007068, rectifier=True),
    Activation("sigmoid", nn.Sigmoid, aliases=("expit",), saturated_below=-_SIGMOID,
               saturated_above=_SIGMOID, gain=4.0, balanced_gains=((1, 4.4),), range=(0.0, 1.0)),
    Activation("hardsigmoid", nn.Hardsigmoid, saturated_below=-3.0, saturated_above=3.0,
               gain=6.0, range=(0.0, 1.0)),
    Activation("logsigmoid", nn.LogSigmoid, aliases=("log_sigmoid",),
               operator="log_sigmoid_forward", saturated_above=_LOGIT,
               gain=2.0, range=(-math.inf, 0.0)),
    Activation("tanh", nn.Tanh, saturated_below=-_SIGMOID / 2, saturated_above=_SIGMOID / 2,
               gain=1.0, balanced_gains=((1, 1.25), (50, 1.25), (200, 1.1)), range=(-1.0, 1.0)),
    Activation("hardtanh", nn.Hardtanh, parameters={"min_val": -1.0, "max_val": 1.0},
               dead_below=lambda low, _: low if low == 0 else None,
               saturated_below=lambda low, _: None if low == 0 else low,
               saturated_above=lambda _, high: high, gain=1.0),
    Activation("softsign", nn.Softsign, saturated_below=-_SOFTSIGN, saturated_above=_SOFTSIGN,
               gain=1.0, range=(-1.0, 1.0)),
    Activation("softshrink", nn.Softshrink),
    Activation("hardshrink", nn.Hardshrink),
    Activation("tanhshrink", nn.Tanhshrink),
):  # fmt: skip
    register_activation(_row)
