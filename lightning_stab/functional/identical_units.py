"""Units that no gradient step can tell apart."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-4  # relative: what deep nets add up in different orders


def identical_fraction(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the fraction of units whose weights AND gradients equal those of another unit.

    Equal weights alone do no harm where the gradients differ: an output layer may start at zero.
    Each unit is projected on two fixed random directions, so that the cost is one product.

    Args:
        weight: shape ``[units, ...]``, at least two units.
        gradient: of the same shape.

    Returns:
        A scalar in [0, 1].

    Example:
        >>> identical_fraction(torch.zeros(4, 3), torch.zeros(4, 3)).item()
        1.0
        >>> identical_fraction(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item()
        0.0
    """
    rows = torch.cat([_fingerprints(weight), _fingerprints(gradient)], dim=1)
    ordered = rows[torch.argsort(rows @ rows.new_tensor([1.0, 0.7, 1.3, 0.4]))]
    same = ((ordered[1:] - ordered[:-1]).abs() <= TOLERANCE).all(1)
    none = same.new_zeros(1)
    return (torch.cat([none, same]) | torch.cat([same, none])).float().mean()


def _fingerprints(values: Tensor) -> Tensor:
    """Return two numbers for each unit, that equal units share, in units of the largest."""
    flat = values.detach().flatten(1).float()
    generator = torch.Generator().manual_seed(flat.shape[1])
    directions = torch.randn(flat.shape[1], 2, generator=generator, dtype=flat.dtype)
    directions = directions.to(flat.device)
    projected = flat @ directions
    return projected / projected.abs().amax().clamp(min=torch.finfo(projected.dtype).tiny)
