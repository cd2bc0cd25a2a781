"""Fixed samples of large tensors, so that a statistic of one needs no copy of it.

The places are spread evenly and stay the same, so that two moments can be compared. Of ``n``
entries the RMS is known within about ``1 / sqrt(2 n)`` relative (one standard deviation, for
entries without heavy tails): 1 % of 4,096, 0.3 % of 65,536.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

WHOLE = 2**19  # entries of a whole set of tensors that are read without sampling: 2 MiB of float32
SHARE, LEAST, MOST = 64, 2**12, 2**16  # of a tensor's entries, one of so many, within these bounds
_SIGN_BIT, _ONE = -(2**31), 0x3F800000  # of a float32: its sign, and the number 1
_LOW = 2**17 - 1  # what a shift of an unsigned number by 15 places leaves
_FACTORS = (-2048144789, -1028477387, -1640531535)  # odd, as signed numbers of 32 bits
LARGE = 2**20  # entries of an activation above which a sample of it is read


def sample_sizes(tensors: Sequence[Tensor]) -> list[int]:
    """Return how many entries of each tensor are enough.

    All where the tensors have at most 524,288 entries together; else one in 64, at least 4,096
    and at most 65,536 of a tensor. The sample has less than 4 % of the entries of a net whose
    tensors have 100,000 or more on average.

    Example:
        >>> import torch
        >>> sample_sizes([torch.empty(10)])
        [10]
        >>> sample_sizes([torch.empty(8_000_000, device="meta"), torch.empty(10)])
        [65536, 4096]
    """
    if sum(tensor.numel() for tensor in tensors) <= WHOLE:
        return [tensor.numel() for tensor in tensors]
    return [min(max(tensor.numel() // SHARE, LEAST), MOST) for tensor in tensors]


def sampled(tensor: Tensor, size: int) -> Tensor:
    """Return about ``size`` evenly spread entries, a view of a contiguous tensor.

    The step has no factor in common with the size of an entry of the first dimension, so that all
    columns, and of convolutions all channels, have their turn.

    Example:
        >>> import torch
        >>> sampled(torch.arange(16.0).reshape(4, 4), 4)
        tensor([ 0.,  3.,  6.,  9., 12., 15.])
    """
    flat = tensor if tensor.dim() == 1 else tensor.reshape(-1)
    most = tensor.numel() // max(size, 1)
    if most <= 1:
        return flat
    row = tensor.numel() // len(tensor) if tensor.dim() > 1 else 1
    return flat[:: _stride(most, row)]


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


def fixed_signs(like: Tensor) -> Tensor:
    """Return +1 and -1 for each entry of a tensor, as good as random, the same on every device.

    Nothing is drawn: a sign is a bit of a hash of its place, in whole numbers of 32 bits, made on
    the tensor's own device.

    Args:
        like: real, of a floating-point precision; gives shape, precision and device.

    Example:
        >>> import torch
        >>> fixed_signs(torch.empty(6)).tolist()
        [1.0, -1.0, 1.0, -1.0, -1.0, -1.0]

    Source: the mixing steps of MurmurHash3 (Appleby 2011).
    """
    signs = _hashed(like).bitwise_and_(_SIGN_BIT).bitwise_or_(_ONE).view(torch.float32)
    return signs.view(like.shape).to(like.dtype)


def fixed_numbers(like: Tensor) -> Tensor:
    """Return numbers in [-1, 1], as good as uniform, the same on every device.

    Args:
        like: real, of a floating-point precision; gives shape, precision and device.

    Example:
        >>> import torch
        >>> bool((fixed_numbers(torch.empty(1000)).abs() <= 1).all())
        True
    """
    return _hashed(like).to(torch.float32).mul_(2.0**-31).view(like.shape).to(like.dtype)


def _hashed(like: Tensor) -> Tensor:
    """Return a hash of the place of each entry; products wrap around."""
    whole = torch.int32 if like.numel() < 2**31 else torch.int64
    bits = torch.arange(like.numel(), dtype=whole, device=like.device).to(torch.int32)
    for factor in _FACTORS:
        bits.bitwise_xor_((bits >> 15).bitwise_and_(_LOW)).mul_(factor)
    return bits.bitwise_xor_((bits >> 15).bitwise_and_(_LOW))


@lru_cache(maxsize=256)
def _stride(most: int, row: int) -> int:
    """Return the largest step up to ``most`` that has no factor in common with a row's length."""
    return next(step for step in range(max(most, 1), 0, -1) if math.gcd(step, row) == 1)
