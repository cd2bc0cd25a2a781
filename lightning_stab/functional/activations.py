"""Statistics of what goes into an activation function and of what comes out, on the device.

A *unit* is what one row of the preceding weights computes: an entry of the last dimension after a
linear layer, a channel after a convolution. Every other dimension is a sample or a position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_stab.functional.activation_kinds import ActivationKind
from lightning_stab.functional.sampling import LARGE, few_entries

CHANNELS = 1  # the dimension of the units after a convolution; after a linear layer it is the last


def unit_dimension(shape: Sequence[int], dimension: int | None = None, features: int = 0) -> int:
    """Return the dimension that counts units, from 0.

    Args:
        shape: the shape of the activation's input, at least two dimensions.
        dimension: the one that the units of the layer before it fill: 1 after a convolution or its
            normalisation (counted from the end where the batch dimension is missing, e.g. -3),
            -1 after a linear layer; None where it is not known.
        features: how many units that layer has; 0 where it is not known. Where only another one of
            the two dimensions has this size, that one is taken.

    Example:
        >>> unit_dimension((8, 16, 5, 5), -3, features=16), unit_dimension((8, 5, 16), -1, 16)
        (1, 2)
        >>> unit_dimension((8, 16, 5, 5)), unit_dimension((8, 5, 16))
        (1, 2)
    """
    last = len(shape) - 1
    if dimension is None:
        return CHANNELS if len(shape) > 3 else last
    place = dimension % len(shape) if -len(shape) <= dimension < len(shape) else last
    if features and shape[place] != features:
        others = [i for i in (CHANNELS, last) if i != place and shape[i] == features]
        return others[0] if others else place
    return place


def unit_peaks(inputs: Tensor, unit: int = -1) -> Tensor:
    """Return each unit's largest pre-activation over all samples and positions, shape ``[units]``.

    NaN where any is NaN. The maximum of several batches' peaks is the peak of all of them.

    Example:
        >>> unit_peaks(torch.tensor([[1.0, -1.0], [0.0, -2.0]])).tolist()
        [1.0, -1.0]
    """
    return inputs.amax(_other_dimensions(inputs, unit))


def dead_units(peaks: Tensor, kind: ActivationKind) -> Tensor:
    """Return which units are dead, from their peaks; bool, shape ``[units]``.

    A unit is dead when its largest pre-activation is still in the dead side of its function. One
    that saw a NaN is not. Kinds without such a side have no dead units.
    """
    if kind.dead_below is None:
        return torch.zeros_like(peaks, dtype=torch.bool)
    return peaks <= kind.dead_below


def unit_is_dead(inputs: Tensor, kind: ActivationKind, unit: int = -1) -> Tensor:
    """Return which units are dead on EVERY sample and position; bool, shape ``[units]``.

    For a ReLU that is: the output is zero everywhere. Elementwise zeros mean nothing, half of a
    healthy ReLU layer is zero at any time. GELU, SiLU and Mish are dead where both the function and
    its derivative stay near 0, far on the negative side.

    Args:
        inputs: pre-activations.
        kind: which function, from `activation_kind`.
        unit: the dimension that counts units.

    Example:
        >>> from lightning_stab.functional.activation_kinds import activation_kind
        >>> z = torch.tensor([[1.0, -1.0], [-3.0, -2.0]])
        >>> unit_is_dead(z, activation_kind("relu")).tolist()
        [False, True]
    """
    return dead_units(unit_peaks(inputs, unit), kind)


def saturated_fraction(inputs: Tensor, kind: ActivationKind, unit: int | None = None) -> Tensor:
    """Return the fraction of entries at which the function is flat, but not at 0.

    Flat is ``|f'(z)| < 0.02 max |f'|``. A NaN is not saturated. Of more than 1,048,576 entries an
    evenly spread sample counts.

    Args:
        inputs: pre-activations.
        kind: which function, from `activation_kind`; one that cannot saturate gives 0.
        unit: None for one fraction over all entries; a dimension for one per unit.

    Example:
        >>> from lightning_stab.functional.activation_kinds import activation_kind
        >>> z = torch.tensor([[0.0, 9.0], [1.0, -9.0]])
        >>> saturated_fraction(z, activation_kind("sigmoid")).item()
        0.5
        >>> saturated_fraction(z, activation_kind("sigmoid"), unit=-1).tolist()
        [0.0, 1.0]
    """
    if unit is not None:
        return _is_saturated(inputs, kind).float().mean(_other_dimensions(inputs, unit))
    entries = few_entries(inputs)
    return torch.count_nonzero(_is_saturated(entries, kind)) / entries.numel()


def mean_and_variance(values: Tensor, unit: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean of all entries and the mean square around it, two scalars.

    With ``unit`` the square is taken around each unit's own mean: what is left of the signal that
    tells samples apart, where offsets between units no longer count. Of more than 1,048,576 entries
    an evenly spread sample counts.

    Example:
        >>> z = torch.tensor([[1.0, 5.0], [3.0, 7.0]])
        >>> [[x.item() for x in mean_and_variance(z, unit)] for unit in (None, 1)]
        [[4.0, 5.0], [4.0, 1.0]]
    """
    values = few_entries(values) if unit is None else _few_places(values, unit)
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    center = wide.mean() if unit is None else wide.mean(_other_dimensions(wide, unit), keepdim=True)
    # a norm in one pass; the difference is taken first, so that a small one is not rounded away
    variance = torch.linalg.vector_norm(wide - center).square() / wide.numel()
    return center.mean(), variance


def pool_moments(
    means: Tensor, variances: Tensor, counts: Tensor, groups: Tensor, num_groups: int
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each group's observations taken together.

    The result is that of the concatenated entries, with ``n - 1`` in the denominator as
    ``torch.std`` has it; NaN where a group has fewer than two entries.

    Args:
        means: shape ``[rows]``, the mean of each observation.
        variances: the mean square around it.
        counts: how many entries each observation had.
        groups: to which group each belongs, integers below ``num_groups``.
        num_groups: how many there are.

    Source: Chan, Golub & LeVeque 1983.
    """
    empty = means.new_zeros(num_groups)
    total = empty.index_add(0, groups, counts)
    mean = empty.index_add(0, groups, counts * means) / total
    squares = counts * (variances + (means - mean[groups]).square())
    variance = empty.index_add(0, groups, squares) / (total - 1)
    return mean, torch.where(total > 1, variance.sqrt(), torch.nan)


def _is_saturated(inputs: Tensor, kind: ActivationKind) -> Tensor:
    low, high = kind.saturated_below, kind.saturated_above
    if low is not None and high is not None:
        return inputs.abs() >= high if low == -high else (inputs <= low) | (inputs >= high)
    if low is not None:
        return inputs <= low
    if high is not None:
        return inputs >= high
    return torch.zeros_like(inputs, dtype=torch.bool)


def _few_places(values: Tensor, unit: int) -> Tensor:
    """Return evenly spread samples and positions of every unit, a view."""
    for dimension in _other_dimensions(values, unit):
        surplus = -(-values.numel() // LARGE)
        if surplus > 1:
            step = min(surplus, values.shape[dimension])
            values = values.movedim(dimension, 0)[::step].movedim(0, dimension)
    return values


def _other_dimensions(values: Tensor, unit: int) -> list[int]:
    return [d for d in range(values.dim()) if d != unit % values.dim()]
