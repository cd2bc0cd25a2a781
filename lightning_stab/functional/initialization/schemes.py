"""The schemes: from a name, the fans of a layer and a gain to a freshly drawn weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_stab.functional.initialization.structured import orthogonal
from lightning_stab.functional.layer_kinds import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

AUTO: Literal["auto"] = "auto"
RandomScheme = Literal[
    "xavier_normal",
    "xavier_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
    "trunc_normal",
]
DataScheme = Literal["lsuv", "lsuv_centered"]  # orthonormal, then rescaled on a batch
SCHEMES: tuple[str, ...] = get_args(RandomScheme)
DATA_SCHEMES: tuple[str, ...] = get_args(DataScheme)
# The standard deviation that a standard normal keeps when it is cut off at -2 and 2.
_STD_WITHIN_TWO = 0.8796256610342398


@dataclass(frozen=True)
class WeightShape:
    """Inputs per output, outputs per input, and the number of equal blocks along dimension 0."""

    fan_in: float
    fan_out: float
    blocks: int = 1


def weight_shape(owner: nn.Module, weight: Tensor) -> WeightShape:
    """Return the fans and blocks of one of the weights of ``owner``, a layer of `SCHEME_LAYERS`.

    | layer | fan in | fan out | blocks |
    |---|---|---|---|
    | linear | in | out | 1 |
    | convolution | in / groups · field | out / groups · field | groups |
    | transposed | in / groups · prod(max(kernel / stride, 1)) | out / groups · field | groups |
    | attention, packed | embedding | embedding | 3 |

    The field is prod(kernel).

    A depthwise convolution's units see one channel each, so its groups count. An output pixel of
    a transposed convolution sees one tap in ``stride``.

    Example:
        >>> layer = nn.Conv2d(8, 16, 3, groups=4)
        >>> weight_shape(layer, layer.weight)
        WeightShape(fan_in=18.0, fan_out=36.0, blocks=4)
        >>> layer = nn.ConvTranspose2d(8, 16, 4, stride=2)
        >>> weight_shape(layer, layer.weight).fan_in
        32.0
    """
    if isinstance(owner, TRANSPOSED_CONVOLUTIONS):
        taps = (max(k / s, 1.0) for k, s in zip(owner.kernel_size, owner.stride, strict=True))
        fan_in = owner.in_channels / owner.groups * math.prod(taps)
        fan_out = owner.out_channels / owner.groups * math.prod(owner.kernel_size)
        return WeightShape(fan_in, fan_out, owner.groups)
    if isinstance(owner, CONVOLUTIONS):
        field = math.prod(owner.kernel_size)
        fan_in = owner.in_channels / owner.groups * field
        return WeightShape(fan_in, owner.out_channels / owner.groups * field, owner.groups)
    blocks = 3 if weight is getattr(owner, "in_proj_weight", None) else 1
    rows, columns = weight.shape
    return WeightShape(float(columns), rows / blocks, blocks)


def scheme_std(scheme: str, shape: WeightShape, gain: float = 1.0) -> float:
    """Return the standard deviation of the weights that ``scheme`` draws.

    Xavier ``gain * sqrt(2 / (fan_in + fan_out))``; Kaiming, LeCun and truncated normal
    ``gain / sqrt(fan_in)``. Uniform schemes draw from ``[-sqrt(3) std, sqrt(3) std]``. Not for
    ``orthogonal``, whose scale follows from its sides.

    Sources: Glorot & Bengio 2010; He et al. 2015; LeCun et al. 1998.

    Example:
        >>> scheme_std("xavier_normal", WeightShape(300.0, 500.0))
        0.05
        >>> scheme_std("kaiming_uniform", WeightShape(100.0, 7.0), gain=2.0)
        0.2
    """
    if scheme.startswith("xavier"):
        return gain * math.sqrt(2 / (shape.fan_in + shape.fan_out))
    return gain / math.sqrt(shape.fan_in)


def draw(
    scheme: str, like: Tensor, shape: WeightShape, gain: float, generator: torch.Generator
) -> Tensor:
    """Return new weights of the shape of ``like``, drawn on the CPU in single or double precision.

    The CPU's generator gives the same numbers for every device and on every rank; orthogonal ones
    are the same to rounding.
    ``orthogonal`` makes each block (a group of a convolution, one of attention's three
    projections) orthogonal by itself.

    Source of the orthogonal scheme: Saxe et al. 2014.

    Example:
        >>> like, shape = torch.empty(4, 4), WeightShape(4.0, 4.0)
        >>> new = draw("orthogonal", like, shape, 2.0, torch.Generator())
        >>> torch.allclose(new @ new.T, 4 * torch.eye(4), atol=1e-5)
        True
    """
    precision = torch.float64 if like.dtype == torch.float64 else torch.float32
    new = torch.empty(like.shape, dtype=precision)
    if scheme == "orthogonal":
        blocks = new.chunk(shape.blocks)
        return torch.cat([orthogonal(b, generator, gain, like.device) for b in blocks])
    std = scheme_std(scheme, shape, gain)
    if scheme == "trunc_normal":
        std /= _STD_WITHIN_TWO
        return nn.init.trunc_normal_(new, 0.0, std, -2 * std, 2 * std, generator=generator)
    if scheme.endswith("uniform"):
        bound = math.sqrt(3) * std
        return nn.init.uniform_(new, -bound, bound, generator=generator)
    return nn.init.normal_(new, 0.0, std, generator=generator)
