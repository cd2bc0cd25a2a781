"""Orthogonal weights with a structure: variance-keeping, mirrored, delta-orthogonal, gate by gate.

A recurrent layer is drawn by its type: orthogonal gates, no offset, and a forget gate that is open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_stab.functional.norms import in_double

LARGE = 1024  # a QR of a larger matrix takes seconds; products of blocks take a fraction of it
_FACTORS = 3
_FAST_PRODUCTS = ("cuda", "xpu")  # of double precision too
ORTHOGONAL_GATES = "orthogonal gates"
FORGET_BIAS = 1.0


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
    is k Q u, exactly linear, wherever f(x) - f(-x) = k x. Its numbers are drawn on the CPU, in
    single precision or better, and Q is written into the weight's quadrants.

    Sources: Saxe et al. 2014; Balduzzi et al. 2017 (mirrored); Xiao et al. 2018 (delta).

    Example:
        >>> new = torch.empty(4, 4)
        >>> draw_structured_(new, Structure(mirror_in=True), 1.0, torch.Generator())
        >>> torch.equal(new[:, :2], -new[:, 2:])
        True
    """
    precision = torch.float64 if weight.dtype == torch.float64 else torch.float32
    for part in weight.chunk(structure.blocks):
        target = _central_tap(part.zero_()) if structure.delta else part.flatten(1)
        rows = target.shape[0] // 2 if structure.mirror_out else target.shape[0]
        columns = target.shape[1] // 2 if structure.mirror_in else target.shape[1]
        core = variance_keeping_orthogonal(
            rows, columns, precision, generator, gain, device=weight.device
        )
        for down in range(target.shape[0] // rows):
            for across in range(target.shape[1] // columns):
                quadrant = target[down * rows :, across * columns :][:rows, :columns]
                quadrant.copy_(core)
                if down != across:
                    quadrant.neg_()
        if not (structure.delta or part.is_contiguous()):  # flattening made a copy
            part.copy_(target.view(part.shape))


def variance_keeping_orthogonal(
    rows: int,
    columns: int,
    precision: torch.dtype,
    generator: torch.Generator,
    gain: float = 1.0,
    *,
    device: torch.device | None = None,
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
    return orthogonal(torch.empty(rows, columns, dtype=precision), generator, gain, device)


def orthogonal(
    new: Tensor, generator: torch.Generator, gain: float = 1.0, device: torch.device | None = None
) -> Tensor:
    """Return what `torch.nn.init.orthogonal_` draws, on an accelerator as products of matrices.

    A GPU's QR is slow, its products are fast. The numbers come from the CPU's generator in either
    case, so that the result is the same to rounding.

    Args:
        new: memory on the CPU, shape ``[rows, ...]``, which is overwritten.
        generator: of the CPU.
        gain: the factor on it.
        device: where the weight is; None for the CPU.

    Example:
        >>> q = orthogonal(torch.empty(3, 5), torch.Generator(), gain=2.0)
        >>> torch.allclose(q @ q.T, 4 * torch.eye(3), atol=1e-5)
        True

    Source: Saxe et al. 2014.
    """
    if device is None or device.type not in _FAST_PRODUCTS:
        return nn.init.orthogonal_(new, gain, generator=generator)
    drawn = new.flatten(1).normal_(generator=generator).to(device)
    tall = drawn if len(drawn) >= drawn.shape[1] else drawn.T
    q = orthonormal_columns(tall).mul_(gain).to(new.dtype)
    return (q if tall is drawn else q.T).reshape(new.shape)


def orthonormal_columns(tall: Tensor) -> Tensor:
    """Return Q of the QR decomposition whose R has a positive diagonal, in double precision.

    By the Cholesky decomposition of the Gram matrix, twice, which leaves Q orthogonal to rounding
    up to a condition of 1e8; where that fails, by Householder reflections.

    Args:
        tall: shape ``[rows, columns]``, at least as many rows as columns.

    Example:
        >>> q = orthonormal_columns(torch.tensor([[3.0], [4.0]]))
        >>> [round(each, 6) for each in q.flatten().tolist()]
        [0.6, 0.8]

    Source: Yamamoto et al. 2015.
    """
    wide = in_double(tall)
    q: Tensor = wide
    for _ in range(2):
        r, failed = torch.linalg.cholesky_ex(q.T @ q, upper=True)
        if bool(failed):
            q, r = torch.linalg.qr(wide)
            break
        q = torch.linalg.solve_triangular(r, q, upper=True, left=False)
    return q.mul_(r.diagonal().sign())  # which Cholesky has made positive


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


def num_gates(owner: nn.Module) -> int:
    """Return how many gates a recurrent layer's weights are packed from.

    Example:
        >>> num_gates(nn.LSTM(3, 4)), num_gates(nn.GRUCell(3, 4)), num_gates(nn.RNN(3, 4))
        (4, 3, 1)
    """
    if isinstance(owner, (nn.LSTM, nn.LSTMCell)):
        return 4
    return 3 if isinstance(owner, (nn.GRU, nn.GRUCell)) else 1


def draw_gates_(owner: nn.Module, name: str, weight: Tensor, generator: torch.Generator) -> None:
    """Draw one weight of a recurrent layer with each gate's block orthogonal.

    Source: Saxe et al. 2014; Le et al. 2015.
    """
    blocks = 1 if name.startswith("weight_hr") else num_gates(owner)
    draw_structured_(weight, Structure(blocks=blocks), 1.0, generator)


def open_forget_gate_(owner: nn.Module, name: str, bias: Tensor) -> None:
    """Set a bias to 0, and the forget gate's part of an LSTM's input bias to 1.

    An LSTM adds two biases; the 1 belongs into ONE of them.

    Source: Gers et al. 2000; Jozefowicz et al. 2015.

    Example:
        >>> lstm = nn.LSTM(2, 1)
        >>> with torch.no_grad():
        ...     open_forget_gate_(lstm, "bias_ih_l0", lstm.bias_ih_l0)
        >>> lstm.bias_ih_l0.tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    bias.zero_()
    if num_gates(owner) == 4 and name.startswith("bias_ih"):
        bias.chunk(4)[1].fill_(FORGET_BIAS)


def _central_tap(weight: Tensor) -> Tensor:
    """Return the central tap of a convolution's kernel."""
    for side in weight.shape[2:]:
        weight = weight.select(2, side // 2)
    return weight
