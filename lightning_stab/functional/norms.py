"""Norms of many tensors in one pass, on the device, without a host synchronisation.

Low precisions are accumulated in float32 (a bfloat16 norm of 315.5 would come out as 316), double
stays double. Sparse, empty, complex and sharded (DTensor) tensors are handled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeGuard

import torch
from torch import Tensor

CHUNK = 2**22  # entries that are converted together
_WITHOUT_DOUBLE = ("mps",)  # Apple's GPU: torch raises for a result in double precision there
_SHARDED: tuple[type[Tensor], ...] = ()
with suppress(ImportError):  # a torch built without distributed support has no sharded tensors
    from torch.distributed.tensor import DTensor

    _SHARDED = (DTensor,)


def tensor_norms(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Return the norm of each tensor, one value per tensor, on the first tensor's device.

    ``norms[i] = (sum |tensors[i]|^p)^(1/p)``; the greatest magnitude for ``p = inf``. The norm of
    an empty tensor is 0. The norm of a sharded tensor is that of the whole tensor: every rank that
    holds a shard has to call this, and one reduction serves all tensors of a mesh.

    Args:
        tensors: any shapes, dtypes, layouts and devices.
        norm_type: the order ``p`` of the norm, > 0.

    Returns:
        A tensor of shape ``[len(tensors)]``: float64 if any input has double precision, else
        float32.

    Example:
        >>> tensor_norms([torch.tensor([3.0, 4.0]), torch.zeros(0)]).tolist()
        [5.0, 0.0]
    """
    if not tensors:
        return torch.zeros(0)
    kinds = {(type(tensor), tensor.dtype, tensor.layout, tensor.device) for tensor in tensors}
    if len(kinds) == 1 and not is_sharded(tensors[0]):  # as nearly always
        return _group_norms(tensors, norm_type)
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, tensor in enumerate(tensors):
        mesh = tensor.device_mesh if is_sharded(tensor) else None
        kind = (type(tensor), tensor.dtype, tensor.layout, tensor.device, mesh)
        groups.setdefault(kind, []).append(index)
    if len(groups) == 1:
        return _group_norms(tensors, norm_type)
    norms = [_group_norms([tensors[i] for i in group], norm_type) for group in groups.values()]
    wide = any(each.dtype is torch.float64 for each in norms)
    dtype = torch.float64 if wide else torch.float32
    result = torch.zeros(len(tensors), dtype=dtype, device=tensors[0].device)
    for group, each in zip(groups.values(), norms, strict=True):
        result[torch.tensor(group, device=result.device)] = each.to(result)
    return result


def total_norm(norms: Tensor, norm_type: float = 2.0) -> Tensor:
    """Return the norm of the concatenation of all tensors, from the norms of each.

    Args:
        norms: shape ``[n]``, non-negative, as from :func:`tensor_norms`.
        norm_type: the order of the norm, the same as for ``norms``.

    Returns:
        A scalar tensor; 0 for no tensors.

    Example:
        >>> total_norm(torch.tensor([3.0, 4.0])).item()
        5.0
    """
    if norms.numel() == 0:
        return norms.new_zeros(())
    result: Tensor = torch.linalg.vector_norm(norms, norm_type)
    return result


def exact_total_norm(tensors: Sequence[Tensor]) -> float:
    """Return the 2-norm of all entries, in double precision, scaled against overflow.

    For the rare step whose float32 norm is infinite although every entry is finite (entries
    beyond about 1e19). Non-finite if and only if an entry is, or if the norm itself leaves double
    precision.

    Example:
        >>> exact_total_norm([torch.full((4,), 1e30)])  # in float32 the squares overflow
        2.0...e+30
    """
    peaks = tensor_norms(tensors, math.inf).tolist()
    if not all(map(math.isfinite, peaks)):
        return math.inf
    peak = max(peaks, default=0.0)
    if peak == 0.0:
        return 0.0
    flat = (plain_values(full_tensor(t)).reshape(-1) for t in tensors)
    pieces = (piece for values in flat for piece in torch.split(values, CHUNK))
    squares = ((in_double(piece).abs() / peak).square().sum() for piece in pieces)
    return peak * math.sqrt(math.fsum(map(float, squares)))


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the widest precision of real numbers that a device has.

    Example:
        >>> wide_dtype(torch.device("cpu")), wide_dtype(torch.device("mps"))
        (torch.float64, torch.float32)
    """
    return torch.float32 if device.type in _WITHOUT_DOUBLE else torch.float64


def lack_double(tensors: Iterable[Tensor]) -> bool:
    """Say whether any of the tensors is on a device without double precision."""
    return any(wide_dtype(tensor.device) is not torch.float64 for tensor in tensors)


def in_double(tensor: Tensor) -> Tensor:
    """Return a tensor in double precision, on the CPU where its device has none.

    Example:
        >>> in_double(torch.ones(2)).dtype, in_double(torch.ones(2, dtype=torch.complex64)).dtype
        (torch.float64, torch.complex128)
    """
    here = tensor.cpu() if lack_double([tensor]) else tensor
    return here.to(torch.complex128 if tensor.is_complex() else torch.float64)


def first_nonfinite(tensors: Iterable[Tensor]) -> int | None:
    """Return the index of the first tensor with a NaN or infinite entry, None if there is none.

    Example:
        >>> first_nonfinite([torch.ones(2), torch.tensor([1.0, float("nan")])])
        1
    """
    for index, tensor in enumerate(tensors):
        if not bool(torch.isfinite(plain_values(local_shard(tensor))).all()):
            return index
    return None


def plain_values(tensor: Tensor) -> Tensor:
    """Return the tensor's entries as a strided tensor: the stored values of a sparse one."""
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def storage_of(tensor: Tensor) -> int:
    """Return what tells a tensor's memory from others': its address, which views share.

    Where there is none to be known by (sparse, lazy, on ``meta``, a wrapper), the tensor's own
    ``id``, which holds as long as the tensor is kept.

    Example:
        >>> whole = torch.zeros(4)
        >>> storage_of(whole[2:]) == storage_of(whole) != storage_of(torch.zeros(4))
        True
    """
    if torch.nn.parameter.is_lazy(tensor) or tensor.layout != torch.strided:
        return id(tensor)
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except RuntimeError:  # what wraps other tensors
        return id(tensor)


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Say whether the tensor is a DTensor."""
    return isinstance(tensor, _SHARDED)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor, and any other tensor as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def add_over_ranks(sums: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Add up the rows of sharded tensors over their ranks, by one exchange; shape ``[n, ...]``."""
    groups: dict[Any, list[int]] = {}
    for place, tensor in enumerate(tensors):
        if is_sharded(tensor):
            groups.setdefault(sharding_of(tensor), []).append(place)
    if not groups:
        return sums
    from torch.distributed.tensor import DTensor, Partial, Replicate

    rows = list(sums.unbind())
    for (mesh, placements), places in groups.items():
        parts = [Replicate() if p.is_replicate() else Partial() for p in placements]
        own = torch.stack([rows[place] for place in places])
        whole = DTensor.from_local(own, mesh, parts).full_tensor()
        for place, row in zip(places, whole.unbind(), strict=True):
            rows[place] = row.to(sums.device)
    return torch.stack(rows)


def sharding_of(tensor: Tensor) -> Any:
    """Return over which ranks a tensor is spread and how, None for one that is whole."""
    return (tensor.device_mesh, tuple(tensor.placements)) if is_sharded(tensor) else None


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a sharded tensor put together, which all of its ranks must ask for; others as is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def same_values(a: Tensor, b: Tensor) -> bool:
    """Say whether two tensors hold the same values, of one shape; NaN equals NaN here.

    Example:
        >>> nan = torch.tensor([1.0, float("nan")])
        >>> same_values(nan, nan.clone()), same_values(nan, nan[:1])
        (True, False)
    """
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _group_norms(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """Measure tensors of one type, precision, layout, device and mesh by one fused call."""
    first, values = tensors[0], list(tensors)
    if first.is_sparse or first.is_complex():
        values = [_real(plain_values(t), norm_type) for t in tensors]
    wide = first.dtype in (torch.float64, torch.complex128)
    dtype = torch.float64 if wide else torch.float32
    if norm_type == math.inf and not is_sharded(first):  # the greatest of nothing is no number
        values = [v if v.numel() else v.new_zeros(1) for v in values]
        if first.device.type == "cpu":  # the fused call takes ten times as long there
            lows, highs = zip(*map(torch.aminmax, values), strict=True)
            return torch.maximum(torch.stack(highs), -torch.stack(lows)).to(dtype)
    if is_sharded(first):  # torch 2.14 cannot shard the call that is given a precision
        values = [v.to(dtype) for v in values]
        return full_tensor(torch.stack(torch._foreach_norm(values, norm_type)))
    return torch.stack(torch._foreach_norm(values, norm_type, dtype=dtype))


def _real(values: Tensor, norm_type: float) -> Tensor:
    if not values.is_complex():
        return values
    return torch.view_as_real(values.resolve_conj()) if norm_type == 2.0 else values.abs()
