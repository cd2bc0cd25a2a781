"""Fan-in and fan-out of a weight, and the equal blocks that it is packed from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_stab.functional.layer_kinds import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS


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
