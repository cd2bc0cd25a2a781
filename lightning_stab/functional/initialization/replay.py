"""What lies between two weights, run again: on a line of numbers, or on other data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_stab.functional.initialization.flow import Flow, channel_dimension
from lightning_stab.functional.initialization.tape import Operation
from lightning_stab.functional.initialization.uses import Stem, Use

Law = Callable[[Tensor], Tensor]
_POINTWISE = {  # torch does not tag all of them
    *("_prelu_kernel", "rrelu_with_noise", "log_sigmoid_forward", "hardswish", "hardsigmoid"),
    *("mish", "softplus", "elu", "threshold", "celu"),
}
_COPIES = {"clone", "_to_copy", "detach", "contiguous", "alias", "lift_fresh"}
_DROPOUTS = {"native_dropout", "_fused_dropout"}
LINEAR_OPERATORS = _COPIES | {"mul", "div", "add", "sub", "neg", "fill", "masked_fill"}
_CLASS_NAMES = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "rrelu_with_noise": "RReLU",
    "_prelu_kernel": "PReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "softplus": "Softplus",
    "hardswish": "Hardswish",
    "sigmoid": "Sigmoid",
    "hardsigmoid": "Hardsigmoid",
    "log_sigmoid_forward": "LogSigmoid",
    "tanh": "Tanh",
    "threshold": "Threshold",
}


def is_pointwise(operation: Operation) -> bool:
    """Return whether each element of the result depends on one element of each argument."""
    return torch.Tag.pointwise in operation.operator.tags or operation.name in _POINTWISE


def activation_operations(flow: Flow, stem: Stem) -> list[Operation]:
    """Return the operations of a stem that bend the signal, the earliest first."""
    return [
        operation
        for operation in reversed(stem.operations)
        if is_pointwise(operation)
        and flow.data_sources(operation)
        and (operation.name not in LINEAR_OPERATORS or len(set(flow.data_sources(operation))) > 1)
    ]


def activation_name(flow: Flow, stem: Stem) -> str:
    """Return the name of the activation in a stem, empty if there is none.

    A single known operator gives the name of torch's class; anything else the class in whose
    forward it ran, or the operators' names.
    """
    found = activation_operations(flow, stem)
    if len(found) == 1 and found[0].name in _CLASS_NAMES:
        return _CLASS_NAMES[found[0].name]
    if len(found) == 1 and found[0].name in {"elu", "hardtanh"}:
        return _named_by_arguments(found[0])
    scopes = {operation.scope for operation in found}
    names = "+".join(dict.fromkeys(operation.name for operation in found))
    scope = scopes.pop() if len(scopes) == 1 else ""
    return scope if scope and "+" in names else names


def _named_by_arguments(operation: Operation) -> str:
    numbers = [float(a) for a in operation.arguments[1:] if isinstance(a, (int, float))]
    if operation.name == "hardtanh":
        return "ReLU6" if numbers == [0.0, 6.0] else "Hardtanh"
    if len(numbers) > 1 and math.isclose(numbers[1], 1.0507, rel_tol=1e-4):
        return "SELU"
    return "CELU" if len(numbers) > 2 and numbers[2] != 1.0 else "ELU"


def scalar_law(flow: Flow, stem: Stem) -> Law:
    """Return the stem as a function of one number, with shapes, pools and dropout left out.

    Constant tensors (a slope per channel, a dropout mask) count by their mean.
    """

    def law(values: Tensor) -> Tensor:
        result = _replay(flow, stem, values, _constant_mean, shapes=False)
        return result.to(torch.float64)

    return law


def keeps_halves(flow: Flow, feeder: Use, consumer: Use) -> bool:
    """Return whether swapping the halves of a layer's units swaps those of the next one's input.

    Tried on random numbers, so that any reshape, permutation or pooling between is judged by what
    it does.
    """
    produced = feeder.operation.outputs[0]
    out, into = channel_dimension(feeder.operation), channel_dimension(consumer.operation)
    if produced.shape[out] % 2 or consumer.data.shape[into] % 2:
        return False
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(produced.shape, generator=generator).to(produced)
    try:
        straight = _replay(flow, consumer.stem, values, _constant_mean, shapes=True)
        swapped = _replay(
            flow, consumer.stem, swap_halves(values, out), _constant_mean, shapes=True
        )
    except Exception:  # whatever cannot run again cannot be judged, and is not mirrored
        return False
    expected = swap_halves(straight, into)
    return expected.shape == swapped.shape and torch.allclose(expected, swapped, atol=1e-5)


def swap_halves(values: Tensor, dimension: int) -> Tensor:
    """Return ``values`` with the two halves of a dimension swapped.

    Example:
        >>> swap_halves(torch.arange(4), 0)
        tensor([2, 3, 0, 1])
    """
    return values.roll(values.shape[dimension] // 2, dimension)


def _constant_mean(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64).mean().to(tensor.dtype)


def _replay(
    flow: Flow, stem: Stem, values: Tensor, constant: Callable[[Tensor], Tensor], *, shapes: bool
) -> Tensor:
    known: dict[Operation | None, Tensor] = {stem.junction: values}
    for operation in reversed(stem.operations):
        data = [source for source in flow.data_sources(operation) if source in known]
        if not data:
            continue
        if not _runs(operation, shapes):
            known[operation] = known[data[0]]
            continue
        swap = {
            id(tensor): constant(tensor) if source not in known else known[source].clone()
            for tensor, source in zip(operation.tensors, operation.sources, strict=True)
        }
        known[operation] = _first(_call(operation, swap, values.dtype))
    return known[stem.operations[0]] if stem.operations else values


def _runs(operation: Operation, shapes: bool) -> bool:
    if operation.name in _DROPOUTS or operation.name in _COPIES:
        return False
    return shapes or is_pointwise(operation)


def _call(operation: Operation, swap: dict[int, Tensor], dtype: torch.dtype) -> Any:
    def exchanged(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        new = swap[id(leaf)]
        return new.to(dtype) if new.is_floating_point() else new

    arguments, keywords = tree_map(exchanged, (operation.arguments, operation.keywords))
    return operation.operator(*arguments, **keywords)


def _first(result: Any) -> Tensor:
    first: Tensor = result[0] if isinstance(result, (tuple, list)) else result
    return first
