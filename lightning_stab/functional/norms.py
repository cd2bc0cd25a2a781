"""Norms of many tensors in one pass, on the device, without a host synchronisation.

Low precisions are accumulated in float32 (a bfloat16 norm of 315.5 would come out as 316), double
stays double. Sparse, empty, complex and sharded (DTensor) tensors are handled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

try:
    from torch.distributed.tensor import DTensor
except ImportError:  # a torch built without distributed support
    DTensor = None  # type: ignore[misc, assignment]


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
    if len({_kind(t) for t in tensors}) == 1 and _is_plain(tensors[0]) and norm_type != math.inf:
        return torch.stack(
            torch._foreach_norm(list(tensors), norm_type, dtype=_sum_dtype(tensors[0]))
        )
    return _norms_by_kind(tensors, norm_type)


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
    magnitudes = [_wide_magnitudes(t) for t in map(full_tensor, tensors) if t.numel()]
    peaks = [float(m.max()) for m in magnitudes if m.numel()]
    if not all(map(math.isfinite, peaks)):
        return math.inf
    peak = max(peaks, default=0.0)
    if peak == 0.0:
        return 0.0
    return peak * math.sqrt(math.fsum(float((m / peak).square().sum()) for m in magnitudes))


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


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor, and any other tensor as it is."""
    if not is_sharded(tensor):
        return tensor
    shard: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return shard


def is_sharded(tensor: Tensor) -> bool:
    """Say whether the tensor is a DTensor."""
    return DTensor is not None and isinstance(tensor, DTensor)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a sharded tensor put together, which all of its ranks must ask for; others as is."""
    if not is_sharded(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def _wide_magnitudes(tensor: Tensor) -> Tensor:
    values = plain_values(tensor)
    return values.to(torch.complex128 if values.is_complex() else torch.float64).abs()


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return (type(tensor), tensor.dtype, tensor.layout, tensor.device)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not (tensor.is_complex() or is_sharded(tensor))


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype in (torch.float64, torch.complex128) else torch.float32


def _norms_by_kind(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """Measure in groups that one fused call can take, and put the results back in order."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, tensor in enumerate(tensors):
        mesh = tensor.device_mesh if is_sharded(tensor) else None  # type: ignore[attr-defined]
        groups.setdefault((mesh, *_kind(tensor)), []).append(index)
    wide = any(_sum_dtype(t) is torch.float64 for t in tensors)
    dtype = torch.float64 if wide else torch.float32
    result = torch.zeros(len(tensors), dtype=dtype, device=tensors[0].device)
    for indices in groups.values():
        members = [tensors[i] for i in indices]
        norms = _group_norms(members, norm_type)
        where = torch.tensor(indices, device=result.device)
        result[where] = norms.to(result)
    return result


def _group_norms(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    if is_sharded(tensors[0]):
        return _sharded_norms(tensors, norm_type)
    values = [_real(plain_values(t), norm_type) for t in tensors]
    filled = [v for v in values if v.numel()]
    norms = iter(
        torch._foreach_norm(filled, norm_type, dtype=_sum_dtype(tensors[0])) if filled else ()
    )
    zero = torch.zeros((), dtype=_sum_dtype(tensors[0]), device=tensors[0].device)
    return torch.stack([next(norms) if v.numel() else zero for v in values])


def _sharded_norms(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    norms = torch._foreach_norm(list(tensors), norm_type, dtype=_sum_dtype(tensors[0]))
    reduce: Callable[[], Tensor] = torch.stack(norms).full_tensor  # type: ignore[attr-defined]
    return reduce()


def _real(values: Tensor, norm_type: float) -> Tensor:
    if not values.is_complex():
        return values
    return torch.view_as_real(values.resolve_conj()) if norm_type == 2.0 else values.abs()
