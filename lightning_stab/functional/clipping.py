"""Rules that bound gradients. Each works in place, on the device, without a host synchronisation.

A trailing underscore marks what is changed: the tensors of the first argument.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_stab.functional.norms import full_tensor, is_sharded, local_shard, plain_values

NORM_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_ adds the same, so results agree with it


def clip_by_value_(gradients: Sequence[Tensor], threshold: float) -> None:
    """Bound every entry: ``g = min(max(g, -threshold), threshold)``.

    An infinite entry becomes the threshold; NaN stays NaN. Complex entries are bounded in their
    real and imaginary parts. The direction of the whole gradient changes.

    Args:
        gradients: any shapes; changed in place.
        threshold: the largest magnitude that may remain, > 0, in the gradient's units.

    Example:
        >>> g = torch.tensor([3000.0, -0.5])
        >>> clip_by_value_([g], 100.0)
        >>> g.tolist()
        [100.0, -0.5]
    """
    for same_kind in _groups(gradients):
        torch._foreach_clamp_min_(same_kind, -threshold)
        torch._foreach_clamp_max_(same_kind, threshold)


def fraction_beyond(gradients: Sequence[Tensor], threshold: float) -> Tensor:
    """Return the fraction of entries whose magnitude exceeds ``threshold``, a scalar in [0, 1].

    Example:
        >>> fraction_beyond([torch.tensor([3000.0, -0.5])], 100.0).item()
        0.5
    """
    stored = [plain_values(local_shard(g)) for g in gradients]
    size = sum(g.numel() for g in stored)
    if not size:
        return torch.zeros(())
    beyond = [torch.count_nonzero(g.abs() > threshold).to(stored[0].device) for g in stored]
    return torch.stack(beyond).sum() / size


def norm_coefficient(total: Tensor, threshold: float) -> Tensor:
    """Return the factor that bounds a gradient of norm ``total``: ``min(1, c / (total + 1e-6))``.

    A norm that is not finite gives 1: scaling by NaN would spread one bad entry over every
    parameter, and scaling by 0 would lose every good one.

    Args:
        total: scalar, the gradient's norm.
        threshold: the largest norm ``c`` that may remain, > 0.

    Example:
        >>> norm_coefficient(torch.tensor(4.0), 1.0).item()
        0.24999...
    """
    coefficient = torch.clamp(threshold / (total + NORM_EPS), max=1.0)
    return torch.where(torch.isfinite(total), coefficient, torch.ones_like(coefficient))


def scale_(gradients: Sequence[Tensor], coefficient: Tensor | float) -> None:
    """Multiply every gradient by one factor.

    Args:
        gradients: any shapes, dtypes and layouts; changed in place.
        coefficient: a number, or a scalar tensor, which stays on its device.

    Example:
        >>> g = torch.tensor([3.0, 4.0])
        >>> scale_([g], 0.5)
        >>> g.tolist()
        [1.5, 2.0]
    """
    for same_kind in _groups(gradients):
        factor = coefficient
        if isinstance(factor, Tensor):
            factor = local_shard(factor).to(same_kind[0].device)
        torch._foreach_mul_(same_kind, factor)


def clip_by_norm_(gradients: Sequence[Tensor], total: Tensor, threshold: float) -> Tensor:
    """Bound the norm of the whole gradient, keeping its direction.

    ``g = g * min(1, threshold / (||g|| + 1e-6))``; afterwards ``||g|| <= threshold``.

    Args:
        gradients: changed in place.
        total: scalar, the 2-norm of all of them, from :func:`norms.total_norm`.
        threshold: the largest norm that may remain, > 0.

    Returns:
        The coefficient, a scalar tensor.

    Example:
        >>> g = torch.tensor([3.0, 4.0])
        >>> clip_by_norm_([g], torch.tensor(5.0), 1.0).item()
        0.19999...

    Source: Pascanu, Mikolov and Bengio, 2013.
    """
    coefficient = norm_coefficient(total, threshold)
    scale_(gradients, coefficient)
    return coefficient


def clip_adaptively_(
    gradients: Sequence[Tensor],
    weights: Sequence[Tensor],
    threshold: float = 0.01,
    weight_floor: float = 1e-3,
    unit_dims: Sequence[int] | None = None,
) -> tuple[Tensor, int]:
    """Bound each unit's gradient by its own weights (AGC).

    ``G = G * min(1, threshold * max(||W||, weight_floor) / max(||G||, 1e-6))`` per unit. A unit is
    a slice along the unit dimension (the output row or filter) of a tensor with two dimensions or
    more, and the whole of a vector or a scalar. The floor lets zero-initialised layers move.

    Args:
        gradients: changed in place.
        weights: the parameters, of the same shapes.
        threshold: the largest ratio of gradient to weight norm, > 0; 0.01 as in the source.
        weight_floor: the smallest norm that a unit's weights count as, > 0.
        unit_dims: the unit dimension of each tensor: 0, or 1 for transposed convolutions.

    Returns:
        The number of units that were clipped (a scalar tensor), and the number of all units.

    Example:
        >>> g, w = torch.full((2, 2), 10.0), torch.ones(2, 2)
        >>> clipped, units = clip_adaptively_([g], [w])
        >>> (int(clipped), units, round(float(g.norm(dim=1)[0] / w.norm(dim=1)[0]), 6))
        (2, 2, 0.01)

    Source: Brock, De, Smith and Simonyan, 2021.
    """
    dims = [0] * len(gradients) if unit_dims is None else unit_dims
    clipped: list[Tensor] = []
    units = 0
    for gradient, weight, dim in zip(gradients, weights, dims, strict=True):
        if gradient.numel() == 0:
            continue
        if gradient.is_sparse:  # its units are the rows that it holds
            gradient, weight = _stored(gradient), weight[tuple(gradient.coalesce().indices())]
        norm = unit_norms(gradient, dim)
        limit = threshold * unit_norms(weight, dim).clamp(min=weight_floor)
        coefficient = (limit / norm.clamp(min=NORM_EPS)).clamp(max=1.0)
        # a unit with a NaN is left as it is: its own entries are lost, no others are
        coefficient = torch.where(torch.isnan(norm), 1.0, coefficient)
        gradient.mul_(coefficient.to(gradient.dtype))
        clipped.append((coefficient < 1.0).sum())  # torch 2.6 shards no `count_nonzero`
        units += norm.numel()
    if not clipped:
        return torch.zeros((), dtype=torch.long), units
    if len({is_sharded(c) for c in clipped}) > 1:  # sharded and plain numbers do not stack
        clipped = [full_tensor(c) for c in clipped]
    return torch.stack([c.to(clipped[0].device) for c in clipped]).sum(), units


def unit_norms(tensor: Tensor, unit_dim: int = 0) -> Tensor:
    """Return the 2-norm of each unit, with the reduced dimensions kept, at least in float32.

    Example:
        >>> unit_norms(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).flatten().tolist()
        [5.0, 1.0]
    """
    wide = torch.promote_types(tensor.abs().dtype, torch.float32)
    values = tensor.abs().to(wide)
    others = [d for d in range(tensor.ndim) if d != unit_dim] if tensor.ndim > 1 else None
    norms: Tensor = torch.linalg.vector_norm(values, dim=others, keepdim=True)
    return norms


def _groups(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return the stored entries of the gradients, those of one kind together."""
    groups: dict[tuple[object, ...], list[Tensor]] = {}
    for entries in map(_stored, gradients):
        groups.setdefault((entries.dtype, entries.layout, entries.device), []).append(entries)
    return list(groups.values())


def _stored(gradient: Tensor) -> Tensor:
    """Return the real, strided entries of a gradient; writing to them writes to the gradient."""
    gradient = local_shard(gradient)
    if gradient.is_sparse and not gradient.is_coalesced():
        gradient.copy_(gradient.coalesce())  # a duplicated row is one row of the true gradient
    values = plain_values(gradient)
    return torch.view_as_real(values) if values.is_complex() else values
