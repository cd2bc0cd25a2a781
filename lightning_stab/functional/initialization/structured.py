"""Orthogonal weights with a structure: variance-keeping, mirrored, delta-orthogonal, fast."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LARGE = 1024  # a QR of a larger matrix takes seconds; products of blocks take a fraction of it
_FACTORS = 3


@dataclass(frozen=True)
class Structure:
    """How a weight is put together.

    Args:
        mirror_in: whether its input comes as f(u), f(-u), half and half.
        mirror_out: whether its result is to leave as u, -u.
        delta: whether a convolution acts through its central tap alone.
        blocks: equal parts along dimension 0 that are drawn each by itself.
    """

    mirror_in: bool = False
    mirror_out: bool = False
    delta: bool = False
    blocks: int = 1


def draw_structured_(
    weight: Tensor, structure: Structure, gain: float, generator: torch.Generator
) -> None:
    """Write orthogonal weights that keep the variance of each unit, times ``gain``.

    A mirrored layer is W = [[Q, -Q], [-Q, Q]]: of f(u) and f(-u) it makes Q (f(u) - f(-u)), which
    is k Q u, exactly linear, wherever f(x) - f(-x) = k x. Q is drawn on the CPU, in single
    precision or better, and written into the weight's quadrants without a copy in between.

    Sources: Saxe et al. 2014; Balduzzi et al. 2017 (mirrored); Xiao et al. 2018 (delta).

    Example:
        >>> new = torch.empty(4, 4)
        >>> draw_structured_(new, Structure(mirror_in=True), 1.0, torch.Generator())
        >>> torch.equal(new[:, :2], -new[:, 2:])
        True
    """
    precision = torch.float64 if weight.dtype == torch.float64 else torch.float32
    for part in weight.chunk(structure.blocks):
        target = _centre(part.zero_()) if structure.delta else part.flatten(1)
        rows = target.shape[0] // 2 if structure.mirror_out else target.shape[0]
        columns = target.shape[1] // 2 if structure.mirror_in else target.shape[1]
        core = variance_keeping_orthogonal(rows, columns, precision, generator, gain)
        for down in range(target.shape[0] // rows):
            for across in range(target.shape[1] // columns):
                quadrant = target[down * rows :, across * columns :][:rows, :columns]
                quadrant.copy_(core)
                if down != across:
                    quadrant.neg_()
        if not (structure.delta or part.is_contiguous()):  # flattening made a copy
            part.copy_(target.view(part.shape))


def variance_keeping_orthogonal(
    rows: int, columns: int, precision: torch.dtype, generator: torch.Generator, gain: float = 1.0
) -> Tensor:
    """Return a matrix with rows of norm ``gain``: orthogonal ones, or if they are many, columns.

    Example:
        >>> wide = variance_keeping_orthogonal(3, 7, torch.float64, torch.Generator())
        >>> torch.allclose(wide @ wide.T, torch.eye(3, dtype=torch.float64))
        True
    """
    gain *= math.sqrt(max(rows / columns, 1.0))
    if min(rows, columns) > LARGE:
        return fast_orthogonal(rows, columns, precision, generator, gain)
    new = torch.empty(rows, columns, dtype=precision)
    return nn.init.orthogonal_(new, gain, generator=generator)


def fast_orthogonal(
    rows: int, columns: int, precision: torch.dtype, generator: torch.Generator, gain: float = 1.0
) -> Tensor:
    """Return ``gain`` times a part of an exactly orthogonal matrix, in O(n^2.5) operations.

    The square matrix, whose side n is the longer one, is a product of three orthogonal matrices
    that each mix about sqrt(n) rows at a time, the second and third in random groups, so that
    every entry is filled. It is not uniform over all orthogonal matrices.

    Example:
        >>> q = fast_orthogonal(50, 50, torch.float64, torch.Generator())
        >>> torch.allclose(q @ q.T, torch.eye(50, dtype=torch.float64))
        True
    """
    side, narrow = max(rows, columns), min(rows, columns)
    product = torch.zeros(side, narrow, dtype=precision)
    blocks = max(side // math.isqrt(side), 1)
    orders = [
        torch.arange(side),
        *(torch.randperm(side, generator=generator) for _ in range(_FACTORS - 1)),
    ]
    for factor, order in enumerate(orders):
        for group in order.tensor_split(blocks):
            mixing = torch.empty(len(group), len(group), dtype=precision)
            last = factor == _FACTORS - 1
            nn.init.orthogonal_(mixing, gain if last else 1.0, generator=generator)
            if factor == 0:
                start, end = int(group[0]), int(group[-1]) + 1
                corner = product[start:end, start:end]
                corner.copy_(mixing[:, : corner.shape[1]])
            else:  # in place, group by group: it stays in the processor's cache
                product.index_copy_(0, group, mixing @ product[group])
    return product if rows == side else product.T


def _centre(weight: Tensor) -> Tensor:
    """Return the central tap of a convolution's kernel."""
    for side in weight.shape[2:]:
        weight = weight.select(2, side // 2)
    return weight
