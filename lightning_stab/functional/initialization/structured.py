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


def draw_structured(
    like: Tensor, structure: Structure, gain: float, generator: torch.Generator
) -> Tensor:
    """Return orthogonal weights that keep the variance of each unit, times ``gain``.

    A mirrored layer is W = [[Q, -Q], [-Q, Q]]: of f(u) and f(-u) it makes Q (f(u) - f(-u)), which
    is k Q u, exactly linear, wherever f(x) - f(-x) = k x.

    Sources: Saxe et al. 2014; Balduzzi et al. 2017 (mirrored); Xiao et al. 2018 (delta).

    Example:
        >>> new = draw_structured(
        ...     torch.empty(4, 4), Structure(mirror_in=True), 1.0, torch.Generator()
        ... )
        >>> torch.equal(new[:, :2], -new[:, 2:])
        True
    """
    precision = torch.float64 if like.dtype == torch.float64 else torch.float32
    parts = []
    for part in torch.empty(like.shape, dtype=precision, device="meta").chunk(structure.blocks):
        rows = part.shape[0]
        flat = part.shape[1] if structure.delta else part.numel() // rows
        matrix = _core(rows, flat, structure, precision, generator) * gain
        parts.append(_central(matrix, part.shape) if structure.delta else matrix.view(part.shape))
    return torch.cat(parts)


def variance_keeping_orthogonal(
    rows: int, columns: int, precision: torch.dtype, generator: torch.Generator
) -> Tensor:
    """Return a matrix whose rows have norm 1: orthonormal, or scaled columns where rows are many.

    Example:
        >>> wide = variance_keeping_orthogonal(3, 7, torch.float64, torch.Generator())
        >>> torch.allclose(wide @ wide.T, torch.eye(3, dtype=torch.float64))
        True
    """
    widening = math.sqrt(max(rows / columns, 1.0))
    if min(rows, columns) > LARGE:
        side = max(rows, columns)
        return fast_orthogonal(side, precision, generator)[:rows, :columns] * widening
    new = torch.empty(rows, columns, dtype=precision)
    return nn.init.orthogonal_(new, widening, generator=generator)


def fast_orthogonal(side: int, precision: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return an exactly orthogonal square matrix in O(n^2.5) operations instead of O(n^3).

    A product of three block-diagonal orthogonal matrices with about sqrt(n) rows a block, with a
    random permutation before each, so that every entry of the product is filled. It is not
    uniform over all orthogonal matrices.

    Example:
        >>> q = fast_orthogonal(50, torch.float64, torch.Generator())
        >>> torch.allclose(q @ q.T, torch.eye(50, dtype=torch.float64))
        True
    """
    product = torch.eye(side, dtype=precision)
    blocks = max(side // max(math.isqrt(side), 1), 1)
    for factor in range(_FACTORS):
        order = torch.randperm(side, generator=generator)
        pieces = [
            nn.init.orthogonal_(torch.empty(len(r), len(r), dtype=precision), generator=generator)
            for r in order.tensor_split(blocks)
        ]
        if factor == 0:
            product = _block_diagonal(pieces)[:, order]
        else:
            rows = product[order].tensor_split(blocks)
            product = torch.cat([q @ part for q, part in zip(pieces, rows, strict=True)])
    return product


def _block_diagonal(pieces: list[Tensor]) -> Tensor:
    side = sum(len(piece) for piece in pieces)
    whole, start = torch.zeros(side, side, dtype=pieces[0].dtype), 0
    for piece in pieces:
        end = start + len(piece)
        whole[start:end, start:end] = piece
        start = end
    return whole


def _core(
    rows: int,
    columns: int,
    structure: Structure,
    precision: torch.dtype,
    generator: torch.Generator,
) -> Tensor:
    rows = rows // 2 if structure.mirror_out else rows
    columns = columns // 2 if structure.mirror_in else columns
    core = variance_keeping_orthogonal(rows, columns, precision, generator)
    if structure.mirror_in:
        core = torch.cat([core, -core], dim=1)
    return torch.cat([core, -core]) if structure.mirror_out else core


def _central(matrix: Tensor, shape: torch.Size) -> Tensor:
    new = torch.zeros(shape, dtype=matrix.dtype)
    centre = new
    for side in shape[2:]:
        centre = centre.select(2, side // 2)
    centre.copy_(matrix)
    return new
