"""What lies between two weights, run again: on a line of numbers, or on other data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_stab.functional.activation_kinds import (
    Activation,
    activation_of_class,
    activation_of_operator,
)
from lightning_stab.functional.initialization.flow import (
    MIXERS,
    Flow,
    UpstreamPath,
    Use,
    channel_dimension,
)
from lightning_stab.functional.initialization.gains import ScalarFunction
from lightning_stab.functional.initialization.tape import Operation
from lightning_stab.functional.norms import in_double
from lightning_stab.functional.random_states import preserve_random_states
from lightning_stab.functional.sampling import LARGE, fixed_numbers

_COPIES = {"clone", "_to_copy", "detach", "contiguous", "alias", "lift_fresh"}
_DROPOUTS = {"native_dropout", "_fused_dropout"}
LINEAR_OPERATORS = _COPIES | {"mul", "div", "add", "sub", "neg", "fill", "masked_fill"}


def is_pointwise(operation: Operation) -> bool:
    """Return whether each element of the result depends on one element of each argument.

    torch does not tag every such operator, and each version others: what is neither tagged nor in
    the catalogue is tried.
    """
    if activation_of_operator(operation.name, None) is not None or _is_tagged(operation):
        return True
    if operation.name in MIXERS:
        return False
    if operation.acts_pointwise is None:
        operation.acts_pointwise = _acts_pointwise(operation)
    return operation.acts_pointwise


def _is_tagged(operation: Operation) -> bool:
    return torch.Tag.pointwise in operation.operator.tags


def _acts_pointwise(operation: Operation) -> bool:
    """Run an operation again: changing any half of the elements changes only their own places."""
    if operation.name in _COPIES | _DROPOUTS or len(operation.outputs) != 1:
        return False
    if getattr(operation.operator, "is_view", False):  # which changes nothing
        return False
    shape = operation.outputs[0].shape
    like = (t for t in operation.tensors if t.shape == shape and t.is_floating_point())
    data = next(like, None)
    if data is None or not data.numel():
        return False
    generator = torch.Generator(data.device).manual_seed(0)
    half = torch.rand(shape, generator=generator, device=data.device) < 0.5
    with preserve_random_states(), torch.no_grad():
        try:
            first, one, other = (_run_again(operation, data, at) for at in (None, half, ~half))
        except Exception:  # what cannot run again shows nothing
            return False
    moves = bool(((first != one) & ~half).any() or ((first != other) & half).any())
    return not moves and not torch.equal(first, data)  # what changes nothing is a view


def _run_again(operation: Operation, data: Tensor, changed: Tensor | None) -> Tensor:
    def exchange(leaf: Any) -> Any:
        new = leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
        return new + changed if leaf is data and changed is not None else new

    arguments, keywords = tree_map(exchange, (operation.arguments, operation.keywords))
    result: Tensor = operation.operator(*arguments, **keywords)
    return result


def activation_operations(flow: Flow, path: UpstreamPath) -> list[Operation]:
    """Return the operations of a path that bend the signal, the earliest first."""
    return [
        operation
        for operation in reversed(path.operations)
        if is_pointwise(operation)
        and flow.data_sources(operation)
        and (operation.name not in LINEAR_OPERATORS or len(set(flow.data_sources(operation))) > 1)
    ]


def activation_of(flow: Flow, path: UpstreamPath) -> tuple[str, Activation | None]:
    """Return the name of the activation on a path, empty if there is none, and its row if known.

    A single known operator has the name of torch's class; anything else that of the class in whose
    forward it ran, or the operators' names.
    """
    found = activation_operations(flow, path)
    if len(found) == 1:
        numbers = [float(a) for a in found[0].arguments[1:] if isinstance(a, (int, float))]
        row = activation_of_operator(found[0].name, numbers)
        if row is not None:
            return row.class_name, row
    names = "+".join(dict.fromkeys(operation.name for operation in found))
    scopes = {operation.scope for operation in found}
    if "+" not in names or len(scopes) > 1 or scopes == {""}:
        return names, None
    (scope,) = scopes
    return scope, activation_of_class(scope, exactly=True)


def scalar_function(flow: Flow, path: UpstreamPath) -> ScalarFunction:
    """Return the path as a function of one number, with shapes, pools and dropout left out.

    Constant tensors (a slope per channel, a dropout mask) count by their mean.
    """
    return ScalarFunction(lambda values: in_double(_replay(flow, path, values, shapes=False)))


def keeps_halves(flow: Flow, feeder: Use, consumer: Use) -> bool:
    """Return whether swapping the halves of a layer's units swaps those of the next one's input.

    Tried on numbers as good as random, so that any reshape, permutation or pooling between counts
    as what it does.
    """
    produced = feeder.operation.outputs[0]
    out, into = channel_dimension(feeder.operation), channel_dimension(consumer.operation)
    if produced.shape[out] % 2 or consumer.data.shape[into] % 2:
        return False
    if produced.numel() > LARGE and produced.is_floating_point():
        values = fixed_numbers(produced)
    else:
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(produced.shape, generator=generator).to(produced)
    try:
        straight = _replay(flow, consumer.upstream, values, shapes=True)
        swapped = _replay(flow, consumer.upstream, swap_halves(values, out), shapes=True)
    except Exception:  # an operator that cannot run again shows nothing: the layer is not mirrored
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


def _replay(flow: Flow, path: UpstreamPath, values: Tensor, *, shapes: bool) -> Tensor:
    known: dict[Operation | None, Tensor] = {path.source: values}
    for operation in reversed(path.operations):
        data = [source for source in flow.data_sources(operation) if source in known]
        if not data:
            continue
        passes_on = operation.name in _DROPOUTS | _COPIES
        if passes_on or not (shapes or is_pointwise(operation)):
            known[operation] = known[data[0]]
            continue
        swap = {
            id(tensor): _mean(tensor, values) if source not in known else known[source].clone()
            for tensor, source in zip(operation.tensors, operation.sources, strict=True)
        }
        result = _call(operation, swap, values.dtype)
        known[operation] = result[0] if isinstance(result, (tuple, list)) else result
    return known[path.operations[0]] if path.operations else values


def _mean(constant: Tensor, like: Tensor) -> Tensor:
    return in_double(constant.detach()).mean().to(like.device, constant.dtype)


def _call(operation: Operation, swap: dict[int, Tensor], dtype: torch.dtype) -> Any:
    def exchange(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        new = swap[id(leaf)]
        return new.to(dtype) if new.is_floating_point() else new

    arguments, keywords = tree_map(exchange, (operation.arguments, operation.keywords))
    if operation.name.startswith("rrelu_with_noise"):  # drawn at random: with the mean slope
        return torch.rrelu(arguments[0], *arguments[2:4])
    return operation.operator(*arguments, **keywords)
