"""Which module or function is an activation, a weight layer or a norm, and of what kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lightning_stab.functional.activation_kinds import (
    CATALOGUE,
    ActivationKind,
    activation_kind,
    activation_of_class,
    tanh_by_output,
)
from lightning_stab.functional.layer_kinds import (
    CHANNEL_NORMS,
    CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
)

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

# The dimension of the units that a weight function makes, from the end; None: it makes none.
WEIGHT_FUNCTIONS: dict[Any, int | None] = {
    functional.linear: -1,
    functional.bilinear: -1,
    functional.conv1d: -2,
    functional.conv2d: -3,
    functional.conv3d: -4,
    functional.conv_transpose1d: -2,
    functional.conv_transpose2d: -3,
    functional.conv_transpose3d: -4,
    functional.multi_head_attention_forward: None,
    functional.scaled_dot_product_attention: None,
    torch.addmm: -1,
    torch.baddbmm: -1,
    **dict.fromkeys((torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__), -1),
    **dict.fromkeys((torch.mm, torch.Tensor.mm, torch.bmm, torch.Tensor.bmm), -1),
    torch.einsum: -1,
}


@dataclass(frozen=True)
class UnitLayout:
    """What the units are of the weight layer or norm that ran last.

    Attributes:
        identity: tells layers apart.
        dimension: which dimension counts its units, as `unit_dimension` takes it.
        features: how many units it has, 0 where not known.
    """

    identity: int
    dimension: int | None
    features: int = 0


def kind_of_module(module: nn.Module) -> ActivationKind | None:
    """Return the kind of an activation module, known by its classes' names; None for any other."""
    for base in type(module).__mro__:
        row = activation_of_class(base.__name__)
        if row is not None:
            return activation_kind(row.name, *row.numbers(vars(module)))
    return None


def kind_of_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ActivationKind:
    """Return the kind of a call of the function ``name``, whose first argument is its input."""
    row = CATALOGUE[name]
    given = dict(zip(row.parameters, args[1:], strict=False))
    return activation_kind(name, *row.numbers({**given, **kwargs}))


def kind_of_recurrent(module: nn.Module) -> ActivationKind:
    """Return the kind of a recurrent module, as far as its output tells.

    Plain recurrence gives its activation's own output; LSTM and GRU mix several.
    """
    nonlinearity = getattr(module, "nonlinearity", None)
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return ActivationKind("lstm")
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return activation_kind("relu") if nonlinearity == "relu" else tanh_by_output()
    return ActivationKind("gru")


def unit_layout_of(module: nn.Module) -> UnitLayout | None:
    """Return what the units of a weight layer or norm are, None for any other module."""
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)):
        return UnitLayout(id(module), -1 - len(module.kernel_size), module.out_channels)
    if isinstance(module, (nn.Linear, nn.Bilinear)):
        return UnitLayout(id(module), -1, module.out_features)
    if isinstance(module, CHANNEL_NORMS):
        return UnitLayout(id(module), 1, module.num_features)
    if isinstance(module, nn.GroupNorm):
        return UnitLayout(id(module), 1, module.num_channels)
    if isinstance(module, nn.LayerNorm):
        return UnitLayout(id(module), -1, module.normalized_shape[-1])
    return None
