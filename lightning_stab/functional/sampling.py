"""Fixed samples of large tensors, so that a statistic of one needs no copy of it.

The places are spread evenly and stay the same, so that two moments can be compared. Of ``n``
entries the RMS is known within about ``1 / sqrt(2 n)`` relative (one standard deviation, for
entries without heavy tails): 1 % of 4,096, 0.3 % of 65,536.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

WHOLE = 2**22  # entries of a whole set of tensors that are read without sampling: 16 MiB of float32
SHARE, LEAST, MOST = 64, 2**12, 2**16  # of a tensor's entries, one of so many, within these bounds
LARGE = 2**20  # entries of an activation above which a sample of it is read


def sample_sizes(tensors: Sequence[Tensor]) -> list[int] | None:
    """Return how many entries of each tensor are enough; None where there is room for all.

    All where the tensors have at most 4,194,304 entries together; else one in 64, at least 4,096
    and at most 65,536 of a tensor. The sample has less than 4 % of the entries of a net whose
    tensors have 100,000 or more on average.

    Example:
        >>> import torch
        >>> sample_sizes([torch.empty(10)]) is None
        True
        >>> sample_sizes([torch.empty(8_000_000, device="meta"), torch.empty(10)])
        [65536, 4096]
    """
    if sum(tensor.numel() for tensor in tensors) <= WHOLE:
        return None
    return [min(max(tensor.numel() // SHARE, LEAST), MOST) for tensor in tensors]


def sampled(tensor: Tensor, size: int) -> Tensor:
    """Return about ``size`` evenly spread entries, a view of a contiguous tensor.

    The step has no factor in common with the length of a row, so that all columns have their turn.

    Example:
        >>> import torch
        >>> sampled(torch.arange(16.0).reshape(4, 4), 4)
        tensor([ 0.,  3.,  6.,  9., 12., 15.])
    """
    flat = tensor.reshape(-1)
    row = tensor.shape[-1] if tensor.dim() > 1 else 1
    return flat[:: _stride(flat.numel() // max(size, 1), row)]


def few_rows(tensor: Tensor, most: int = LARGE) -> Tensor:
    """Return evenly spread entries of the first dimension, with about ``most`` numbers; a view.

    Example:
        >>> import torch
        >>> few_rows(torch.arange(8.0).reshape(4, 2), most=4).tolist()
        [[0.0, 1.0], [4.0, 5.0]]
    """
    if tensor.dim() == 0 or tensor.numel() <= most:
        return tensor
    return tensor[:: min(-(-tensor.numel() // most), len(tensor))]


def few_entries(tensor: Tensor, most: int = LARGE) -> Tensor:
    """Return evenly spread entries, about ``most`` of them, of a tensor with more; else itself.

    Example:
        >>> import torch
        >>> few_entries(torch.arange(5.0), most=2).tolist()
        [0.0, 2.0, 4.0]
    """
    return tensor if tensor.numel() <= most else sampled(tensor, most)


def per_sample(tensor: Tensor, most: int = LARGE) -> Tensor:
    """Return some entries of every sample, the first dimension: all where there are few; a view.

    Example:
        >>> import torch
        >>> per_sample(torch.arange(10.0).reshape(2, 5), most=4).tolist()
        [[0.0, 3.0], [5.0, 8.0]]
    """
    if tensor.numel() <= most or len(tensor) == 0:
        return tensor
    return tensor.flatten(1)[:, :: _stride(-(-tensor.numel() // max(most, 1)), tensor.shape[-1])]


def _stride(most: int, row: int) -> int:
    """Return the largest step up to ``most`` that has no factor in common with a row's length."""
    return next(step for step in range(max(most, 1), 0, -1) if math.gcd(step, row) == 1)
