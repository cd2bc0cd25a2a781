"""Statistics of gradients and weight changes beyond their norms, and of units that are alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lightning_stab.functional.norms import (
    add_over_ranks,
    in_double,
    local_shard,
    plain_values,
    sharding_of,
    tensor_norms,
)
from lightning_stab.functional.sampling import sampled

Sample = int | Sequence[int] | None
_PLAIN = (Tensor, torch.nn.Parameter)  # that are no wrappers of others
_EXACT = (torch.float32, torch.float64)  # precisions in which differences are taken as they are
CHUNK = 2**22  # entries that are looked at together
JOINED = 2**18  # entries of several tensors that are converted together
SHORT, PIECE = 2**12, 2**16  # entries of a tensor that a CPU counts as numbers
IDENTICAL_TOLERANCE = 1e-4  # relative: what deep nets add up in different orders


def largest_magnitudes(tensors: Sequence[Tensor]) -> Tensor:
    """Return the greatest magnitude in each tensor, shape ``[n]``; 0 for an empty tensor.

    Example:
        >>> largest_magnitudes([torch.tensor([1.0, -3.0])]).tolist()
        [3.0]
    """
    return tensor_norms(tensors, math.inf)


def count_zero_and_nonfinite(tensors: Sequence[Tensor], *, nonfinite: bool = True) -> Tensor:
    """Return, per tensor, how many entries are zero and how many are not finite, shape ``[n, 2]``.

    A sparse tensor's missing rows are zeros. Of a sharded tensor, this rank's shard is counted.

    Args:
        tensors: any shapes and layouts.
        nonfinite: whether the second column is wanted; it is 0 otherwise, and costs nothing.

    Example:
        >>> count_zero_and_nonfinite([torch.tensor([0.0, 1.0, float("nan")])]).tolist()
        [[1, 1]]
    """
    if not tensors:
        return torch.zeros(0, 2, dtype=torch.long)
    device, shards = tensors[0].device, [local_shard(tensor) for tensor in tensors]
    values = [plain_values(shard) for shard in shards]
    sizes = tuple(v.numel() for v in values)
    counts = torch.stack([number.to(device) for number in _nonzero(values)])
    zero = _on_device(tuple(s.numel() for s in shards), device, torch.long) - counts
    if not nonfinite:
        return torch.stack([zero, torch.zeros_like(zero)], dim=1)
    num_finite = [_count(lambda v: torch.count_nonzero(torch.isfinite(v)), v) for v in values]
    finite = torch.stack([number.to(device) for number in num_finite])
    return torch.stack([zero, _on_device(sizes, device, torch.long) - finite], dim=1)


@torch.no_grad()
def cosine(
    first: Sequence[Tensor], second: Sequence[Tensor], of: Sequence[Tensor] | None = None
) -> Tensor:
    """Return the cosine of the angle between two gradients, each a list of tensors.

    ``sum <a_i, b_i> / (||a|| ||b||)``, a scalar in [-1, 1], in double precision; 0 where either is
    zero or not finite. Of samples each tensor counts by its whole size, with an error of about
    ``sqrt((1 - c^2) / n)`` for ``n`` entries of one magnitude in all. Tensors that are sharded in
    one way need one exchange of their ranks.

    Args:
        first: the tensors of one gradient, or samples from :func:`copy_entries`.
        second: those of the other, of the same shapes.
        of: the tensors of a gradient, whose sizes the samples stand for; None: all is there.

    Example:
        >>> cosine([torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 1.0])]).item()
        0.7071...
        >>> g = torch.arange(12.0)
        >>> cosine(copy_entries([g], [4]), copy_entries([2 * g], [4]), [g]).item()
        1.0
    """
    whole = second if of is None else of
    parts = list(zip(first, second, whole, strict=True))
    groups: list[list[int]] = []  # of one sharding, and few entries, so that little is converted
    open_: dict[Any, tuple[list[int], int]] = {}
    for place, (entries, _, tensor) in enumerate(parts):
        kind = sharding_of(tensor)
        group, count = open_.get(kind, ([], JOINED))
        if count >= JOINED:
            group, count = [], 0
            groups.append(group)
        group.append(place)
        open_[kind] = group, count + entries.numel()
    rows = [_products([parts[place] for place in group]) for group in groups]
    sums = torch.stack([row.to(rows[0].device) for row in rows])
    inner, one, other = add_over_ranks(sums, [whole[group[0]] for group in groups]).sum(0)
    norms = one.sqrt() * other.sqrt()
    usable = (norms > 0) & norms.isfinite()
    return torch.where(usable, inner / torch.where(usable, norms, 1.0), 0.0).clamp(-1.0, 1.0)


def _products(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return ``<a, b>``, ``<a, a>`` and ``<b, b>`` of tensors, estimated from samples."""
    wholes = [part[2].numel() for part in parts]  # so that all of what is there counts
    entries = [_entries([part[side] for part in parts], wholes) for side in (0, 1)]
    sizes = [e.numel() * (1 + e.is_complex()) for e in entries[0]]
    shares = [math.sqrt(_weight(p[2], e)) for p, e in zip(parts, entries[0], strict=True)]
    a, b = (in_double(_joined(each)) for each in entries)
    for values in (a, b):
        torch._foreach_mul_(list(torch.split(values, sizes)), shares)
    return torch.stack([torch.dot(a, b), torch.dot(a, a), torch.dot(b, b)])


@torch.no_grad()
def copy_entries(tensors: Sequence[Tensor], sample: Sample = None) -> list[Tensor]:
    """Return a copy of each tensor's entries, to be compared with the entries later.

    Args:
        tensors: any shapes.
        sample: about how many evenly spread entries of this rank's shard are enough, of every
            tensor or of each; None: all.

    Example:
        >>> copy_entries([torch.arange(6.0)], sample=3)
        [tensor([0., 2., 4.])]
    """
    entries = _entries(tensors, sample)
    kinds = {(type(e) in _PLAIN, e.dtype, e.device, e.layout) for e in entries}
    if sample is None or len(kinds) != 1 or type(entries[0]) not in _PLAIN:
        return [each.clone() for each in entries]
    return list(torch.split(torch.cat(entries), [e.numel() for e in entries]))  # one kernel


@torch.no_grad()
def change_and_size(
    before: Sequence[Tensor], after: Sequence[Tensor], sample: Sample = None
) -> tuple[Tensor, Tensor]:
    """Return the norms of each tensor's change and of what it was, two tensors of shape ``[n]``.

    Their ratio is the update-to-weight ratio: about 1e-3 in healthy training, and a relative
    learning rate that the weights really feel, with any optimizer.

    Args:
        before: from :func:`copy_entries`, with the same ``sample``.
        after: the tensors as they are now.
        sample: about how many entries are compared: a number for every tensor, which gives the
            norms of the compared entries of this rank; a list, from ``sampling.sample_sizes``,
            which gives estimates of the whole norms; None: all.

    Example:
        >>> weight = torch.tensor([3.0, 4.0])
        >>> before = copy_entries([weight])
        >>> change, size = change_and_size(before, [weight + 0.3])
        >>> (change / size).item()
        0.0848...
    """
    norms = change_norms(before, _entries(after, sample)), tensor_norms(before)
    if sample is None or isinstance(sample, int) or not after:
        return norms
    shares = tuple(_weight(t, b) for t, b in zip(after, before, strict=True))
    weights = _on_device(shares, norms[0].device, norms[0].dtype)
    squares = torch.stack([n.to(weights).square() * weights for n in norms], dim=1)
    change, size = add_over_ranks(squares, after).sqrt().unbind(1)
    return change, size


def change_norms(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Return the norm of each tensor's change, shape ``[n]``, from copies of the same entries.

    Example:
        >>> change_norms([torch.zeros(2)], [torch.tensor([3.0, 4.0])])
        tensor([5.])
    """
    return tensor_norms(_differences(after, before))


def by_layer(names: Sequence[str], norms: Sequence[float]) -> dict[str, float]:
    """Return each layer's norm from its parameters' norms; a layer is a parameter's module.

    Example:
        >>> by_layer(["net.0.weight", "net.0.bias", "scale"], [3.0, 4.0, 2.0])
        {'net.0': 5.0, 'scale': 2.0}
    """
    squares: dict[str, float] = {}
    for name, norm in zip(names, norms, strict=True):
        layer = layer_of(name)
        squares[layer] = squares.get(layer, 0.0) + norm * norm
    return {layer: math.sqrt(square) for layer, square in squares.items()}


def layer_of(parameter_name: str) -> str:
    """Return the name of the module that owns a parameter; the parameter's own at the root.

    Example:
        >>> layer_of("encoder.layers.0.weight"), layer_of("scale")
        ('encoder.layers.0', 'scale')
    """
    return parameter_name.rpartition(".")[0] or parameter_name


def log_ratio(first: float, last: float) -> float:
    """Return ``log10(first / last)``; NaN unless both are positive and finite.

    Over the layers in execution order it is far below 0 where gradients vanish on their way back,
    far above where they explode.

    Example:
        >>> round(log_ratio(1e-6, 1e-2), 3)
        -4.0
    """
    usable = first > 0 and last > 0 and math.isfinite(first) and math.isfinite(last)
    return math.log10(first) - math.log10(last) if usable else math.nan


def ratios(numerators: Mapping[str, float], denominators: Mapping[str, float]) -> dict[str, float]:
    """Return the quotient by name, leaving out names whose denominator is zero.

    Example:
        >>> ratios({"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 0.0})
        {'a': 0.25}
    """
    return {name: n / denominators[name] for name, n in numerators.items() if denominators[name]}


def noise_and_signal(
    small_norm: float, large_norm: float, small_size: float, large_size: float
) -> tuple[float, float]:
    """Return unbiased estimates of the gradient's noise ``tr(S)`` and signal ``|G|^2``.

    ``|G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b)`` and
    ``tr(S) = (|g_b|^2 - |g_B|^2) / (1/b - 1/B)``, from the norms of the mean gradient over ``b``
    and over ``B > b`` examples. A single pair is noisy and may be negative: average both numbers
    over steps before taking their ratio, the noise scale ``tr(S) / |G|^2`` in examples.

    Args:
        small_norm: ``|g_b|``, the norm over the small batch.
        large_norm: ``|g_B|``, the norm over the large batch.
        small_size: ``b``, examples in the small batch, > 0.
        large_size: ``B``, examples in the large batch, > ``b``.

    Example:
        >>> noise_and_signal(small_norm=2.0, large_norm=1.0, small_size=1, large_size=4)
        (4.0, 0.0)

    Source: McCandlish, Kaplan, Amodei and others, 2018, appendix A.1.
    """
    small, large = small_norm * small_norm, large_norm * large_norm
    signal = (large_size * large - small_size * small) / (large_size - small_size)
    noise = (small - large) / (1.0 / small_size - 1.0 / large_size)
    return noise, signal


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
    same = ((ordered[1:] - ordered[:-1]).abs() <= IDENTICAL_TOLERANCE).all(1)
    none = same.new_zeros(1)
    return (torch.cat([none, same]) | torch.cat([same, none])).float().mean()


def _entries(tensors: Sequence[Tensor], sample: Sample) -> list[Tensor]:
    if sample is None:
        return list(tensors)
    if not isinstance(sample, int):
        shards = [local_shard(t).to_dense() if t.is_sparse else local_shard(t) for t in tensors]
        return [sampled(t, size) for t, size in zip(shards, sample, strict=True)]
    flat = [local_shard(tensor).reshape(-1) for tensor in tensors]
    return [entries[:: max(1, entries.numel() // sample)] for entries in flat]


def _weight(whole: Tensor, entries: Tensor) -> float:
    """Return how many entries of this rank's shard each of the sampled ones stands for."""
    return local_shard(whole).numel() / max(entries.numel(), 1)


@lru_cache(maxsize=16)
def _on_device(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return numbers on a device; cached, because moving them there waits for it."""
    return torch.tensor(values, dtype=dtype, device=device)


def _joined(entries: Sequence[Tensor]) -> Tensor:
    """Return the real numbers of several tensors as one."""
    real = [torch.view_as_real(e.resolve_conj()) if e.is_complex() else e for e in entries]
    return torch.cat([e.reshape(-1).to(real[0].device) for e in real])


def _differences(first: Sequence[Tensor], second: Sequence[Tensor]) -> Sequence[Tensor]:
    pairs = list(zip(first, second, strict=True))
    if all(type(t) in _PLAIN and t.dtype in _EXACT for pair in pairs for t in pair) and pairs:
        return torch._foreach_sub(list(first), list(second))
    return [_wide(a) - _wide(b) for a, b in pairs]


def _nonzero(values: Sequence[Tensor]) -> list[Tensor]:
    """Count what is not zero in each tensor.

    On a CPU the truth values are written as numbers, whose sum takes half the time.
    """
    scratch: Tensor | None = None

    def count(v: Tensor) -> Tensor:
        nonlocal scratch
        is_plain = v.device.type == "cpu" and v.layout is torch.strided and not v.is_complex()
        if not is_plain or not SHORT <= v.numel() <= PIECE:
            return _count(torch.count_nonzero, v)
        if scratch is None:  # whatever a precision plugin has made the default
            scratch = torch.empty(PIECE, dtype=torch.float32, device=v.device)
        return torch.ne(v, 0, out=scratch[: v.numel()].view(v.shape)).sum().long()

    return [count(v) for v in values]


def _count(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Count in pieces: a mask of a large tensor would be large."""
    if values.numel() <= CHUNK:
        return function(values)
    return torch.stack([function(p) for p in torch.split(values.reshape(-1), CHUNK)]).sum()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _fingerprints(values: Tensor) -> Tensor:
    """Return two numbers for each unit, that equal units share, in units of the largest."""
    flat = values.detach().flatten(1).float()
    generator = torch.Generator().manual_seed(flat.shape[1])
    directions = torch.randn(flat.shape[1], 2, generator=generator, dtype=flat.dtype)
    directions = directions.to(flat.device)
    projected = flat @ directions
    return projected / projected.abs().amax().clamp(min=torch.finfo(projected.dtype).tiny)
