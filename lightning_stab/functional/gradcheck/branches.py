"""Which branch of every piecewise function a run takes, as a list of check sums."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

# Result equals the first argument on one side of the kink, and differs on the other.
_KEEPS = {"relu", "relu_", "threshold", "threshold_", "hardtanh", "hardtanh_", "clamp", "clamp_"}
_KEEPS |= {"clamp_min", "clamp_max", "clamp_min_", "clamp_max_", "maximum", "minimum", "fmax"}
_KEEPS |= {"fmin", "hardshrink", "nan_to_num", "amax", "amin", "max", "min", "softplus", "renorm"}
# Piecewise in the sign of the first argument.
_SIGNED = {"abs", "abs_", "sign", "sgn", "leaky_relu", "leaky_relu_", "elu", "elu_", "celu"}
_SIGNED |= {"prelu", "_prelu_kernel", "rrelu_with_noise", "rrelu_with_noise_", "softshrink"}
_SIGNED |= {"heaviside", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "xlogy"}
# Piecewise constant, so the result itself is the branch.
_STEPS = {"floor", "ceil", "round", "trunc", "floor_divide", "heaviside", "sign", "floor_"}
_STEPS |= {"ceil_", "round_", "trunc_"}
_NORMS = {"linalg_vector_norm", "norm", "_cdist_forward", "_pdist_forward", "dist"}


class Branches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums up every boolean, every index and the side of every kink in a run.

    Two runs with equal ``sums`` went through the same smooth pieces.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sums: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        before = args[0].clone() if name.endswith("_") and _is_float(args) else None
        result = func(*args, **(kwargs or {}))
        for tensor in _sides(name, args, result, before):
            self.sums.append(check_sum(tensor))
        return result


def _is_float(args: Any) -> bool:
    return bool(args) and isinstance(args[0], Tensor) and args[0].is_floating_point()


def _sides(name: str, args: Any, result: Any, before: Tensor | None) -> list[Tensor]:
    if "empty" in name or name == "set_":
        return []  # memory that holds nothing yet
    found = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor) and _is_discrete(t)]
    if not _is_float(args) or not _piecewise(name):
        return found
    source = args[0] if before is None else before
    if name in _KEEPS:
        found.extend(_kept_entries(source, args, result))
    if name in _SIGNED:
        found.extend([source > 0, source < 0])
    if name in _STEPS:
        found.append(result)
    return found + _special(name, args, source)


def _piecewise(name: str) -> bool:
    return name in _KEEPS or name in _SIGNED or name in _STEPS or name in _NORMS or name in _CUSTOM


def _is_discrete(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _kept_entries(source: Tensor, args: Any, result: Any) -> list[Tensor]:
    if not isinstance(result, Tensor):
        return []
    found = []
    for other in (source, *args[1:]):
        if isinstance(other, Tensor):
            try:
                found.append(result == other)
            except RuntimeError:
                found.append(source == source.max())
    if result.dim() < source.dim():
        found.append(_extremes(source))
    return found


def _extremes(source: Tensor) -> Tensor:
    return torch.stack([source.argmax(), source.argmin()])


def _difference(args: Any, source: Tensor) -> list[Tensor]:
    gap = source - args[1]
    width = next((a for a in args[2:] if isinstance(a, float)), 1.0)
    return [gap > 0, gap < 0, gap.abs() < width]


def _order(args: Any, source: Tensor) -> list[Tensor]:
    return [source > 0, source < 0]


def _ceiling(args: Any, source: Tensor) -> list[Tensor]:
    return [source < 3, source > -3]


def _lambda(args: Any, source: Tensor) -> list[Tensor]:
    width = args[1] if len(args) > 1 else 0.5
    return [source.abs() > width]


def _pairs(args: Any, source: Tensor) -> list[Tensor]:
    other = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else source
    gap = source.unsqueeze(-2) - other.unsqueeze(-3)
    return [gap > 0]


def _margins(args: Any, source: Tensor) -> list[Tensor]:
    gap = source.unsqueeze(-1) - source.unsqueeze(-2)
    return [gap > 1, gap < 1]


_CUSTOM: dict[str, Callable[[Any, Tensor], list[Tensor]]] = {
    "smooth_l1_loss": _difference,
    "huber_loss": _difference,
    "linalg_vector_norm": _order,
    "norm": _order,
    "hardswish": _ceiling,
    "hardsigmoid": _ceiling,
    "softshrink": _lambda,
    "_cdist_forward": _pairs,
    "multi_margin_loss": _margins,
    "multilabel_margin_loss_forward": _margins,
    "dist": lambda args, source: [source > args[1]],
}


def _special(name: str, args: Any, source: Tensor) -> list[Tensor]:
    return _CUSTOM[name](args, source) if name in _CUSTOM else []


def check_sum(tensor: Tensor) -> int:
    """Return a check sum of the bytes of a tensor."""
    data = tensor.detach().contiguous().cpu()
    return zlib.crc32(data.reshape(-1).view(torch.uint8).numpy().tobytes()) if data.numel() else 0
