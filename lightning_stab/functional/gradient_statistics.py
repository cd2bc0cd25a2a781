"""Statistics of gradients and weight changes beyond their norms, on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_stab.functional.norms import local, plain_values, tensor_norms, total_norm


def largest_magnitudes(tensors: Sequence[Tensor]) -> Tensor:
    """Return the greatest magnitude in each tensor, shape ``[n]``; 0 for an empty tensor.

    Example:
        >>> largest_magnitudes([torch.tensor([1.0, -3.0])]).tolist()
        [3.0]
    """
    return tensor_norms(tensors, math.inf)


def count_zero_and_nonfinite(tensors: Sequence[Tensor]) -> Tensor:
    """Return, per tensor, how many entries are zero and how many are not finite, shape ``[n, 2]``.

    A sparse tensor's missing rows are zeros. Of a sharded tensor, this rank's shard is counted.

    Example:
        >>> count_zero_and_nonfinite([torch.tensor([0.0, 1.0, float("nan")])]).tolist()
        [[1, 1]]
    """
    rows = []
    for tensor in tensors:
        shard = local(tensor)
        values = plain_values(shard)
        nonzero = torch.count_nonzero(values)
        nonfinite = values.numel() - torch.count_nonzero(torch.isfinite(values))
        rows.append(torch.stack([shard.numel() - nonzero, nonfinite]).to(tensors[0].device))
    return torch.stack(rows) if rows else torch.zeros(0, 2, dtype=torch.long)


def cosine(
    first: Sequence[Tensor], second: Sequence[Tensor], norms: Tensor | None = None
) -> Tensor:
    """Return the cosine of the angle between two gradients, each a list of tensors.

    ``sum <a_i, b_i> / (||a|| ||b||)``, a scalar in [-1, 1]; 0 where either is zero.

    Args:
        first: the tensors of one gradient.
        second: those of the other, of the same shapes.
        norms: the product of the two norms, if it is known already.

    Example:
        >>> cosine([torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 1.0])]).item()
        0.7071...
    """
    products = [_inner(a, b) for a, b in zip(first, second, strict=True)]
    inner = torch.stack([p.to(products[0].device) for p in products]).sum()
    if norms is None:
        norms = total_norm(tensor_norms(first)) * total_norm(tensor_norms(second))
    return torch.where(norms > 0, inner / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0.0)


def change_and_size(before: Sequence[Tensor], after: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the norms of each tensor's change and of what it was, two tensors of shape ``[n]``.

    Their ratio is the update-to-weight ratio: about 1e-3 in healthy training, and a relative
    learning rate that the weights really feel, whatever the optimizer.

    Example:
        >>> change, size = change_and_size([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 4.5])])
        >>> (change / size).item()
        0.1...
    """
    differences = [_wide(a) - _wide(b) for a, b in zip(after, before, strict=True)]
    return tensor_norms(differences), tensor_norms(before)


class WeightChange:
    """How far a step moves parameters, from copies that are taken before it.

    Args:
        params: the parameters, as they stand before the step.
        sample: how many entries of each to compare, spread evenly over this process's shard; all
            entries of the whole parameter by default.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> change = WeightChange([weight])
        >>> weight.data[1] = 4.5
        >>> [norms.item() for norms in change.norms()]
        [0.5, 5.0]
    """

    def __init__(self, params: Sequence[Tensor], *, sample: int | None = None) -> None:
        self.params = list(params)
        self._sample = sample
        self._before = [entries.clone() for entries in self._entries()]

    def norms(self) -> tuple[Tensor, Tensor]:
        """Return the norms of each parameter's change and of what it was, as `change_and_size`."""
        return change_and_size(self._before, self._entries())

    def _entries(self) -> list[Tensor]:
        if self._sample is None:
            return [p.detach() for p in self.params]
        flat = [local(p.detach()).reshape(-1) for p in self.params]
        return [entries[:: max(1, entries.numel() // self._sample)] for entries in flat]


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


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _inner(a: Tensor, b: Tensor) -> Tensor:
    if type(a) is type(b) is Tensor and a.dtype == b.dtype == torch.float32 and _dense(a, b):
        return torch.dot(a.reshape(-1), b.reshape(-1))  # one pass, and nothing allocated
    if a.is_sparse or b.is_sparse:
        a, b = a.to_dense(), b.to_dense()
    product = (_wide(a) * _wide(b).conj()).sum()
    whole: Tensor = product.full_tensor() if hasattr(product, "full_tensor") else product
    return whole.real if whole.is_complex() else whole


def _dense(*tensors: Tensor) -> bool:
    return all(t.layout is torch.strided and t.is_contiguous() for t in tensors)
