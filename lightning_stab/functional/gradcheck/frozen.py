"""Branches held fast: the smooth piece of a loss that the unperturbed point lies on.

A net of ReLUs has a kink within almost every step that rounding leaves room for. Autograd's
gradient is that of the piece on which the point lies. Holding every mask, every comparison and
every index of a maximum as it was there turns the loss into that piece, smooth for any step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Held = tuple[str, Tensor]
Rule = Callable[[Tensor, Any], Any]
Record = Callable[[Any, Any], Tensor | None]


class FrozenBranches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the branches of a run, or holds those of an earlier one.

    Args:
        held: receives the branches, or gives them.
        replay: whether to give.
    """

    def __init__(self, held: list[Held], *, replay: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held = held
        self._replay = replay
        self._next = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        key = f"{name}.{func._overloadname}"
        record, rule = _RULES.get(key, _RULES.get(name, (None, None)))
        if record is None and name not in _COMPARISONS:
            return func(*args, **(kwargs or {}))
        if self._replay:
            return self._again(func, key, rule, args, kwargs)
        source = args[0].clone() if name.endswith("_") else args[0]
        result = func(*args, **(kwargs or {}))
        branch = result if record is None else record((source, *args[1:]), result)
        if branch is not None:
            self._held.append((key, branch.clone()))
        return result

    def _again(self, func: Any, key: str, rule: Rule | None, args: Any, kwargs: Any) -> Any:
        if self._next < len(self._held) and self._held[self._next][0] == key:
            branch = self._held[self._next][1]
            self._next += 1
            return branch.clone() if rule is None else rule(branch, args)
        return func(*args, **(kwargs or {}))


def _positive(args: Sequence[Tensor], result: Any) -> Tensor:
    return args[0] > 0


def _unchanged(args: Any, result: Any) -> Tensor:
    """Return NaN where the argument passes, and the bound where it is cut off."""
    return torch.where(result == args[0], torch.full_like(result, torch.nan), result)


def _sign(args: Sequence[Tensor], result: Any) -> Tensor:
    return args[0].sign()


def _first_is_larger(args: Sequence[Tensor], result: Any) -> Tensor:
    return args[0] > args[1]


def _first_is_smaller(args: Sequence[Tensor], result: Any) -> Tensor:
    return args[0] < args[1]


def _indices(args: Any, result: Any) -> Tensor:
    return result[1]  # type: ignore[no-any-return]


def _masked(branch: Tensor, args: Sequence[Tensor]) -> Tensor:
    return args[0] * branch


def _masked_in_place(branch: Tensor, args: Any) -> Tensor:
    return args[0].mul_(branch)  # type: ignore[no-any-return]


def _leaky(branch: Tensor, args: Any) -> Tensor:
    slope = args[1] if len(args) > 1 else 0.01
    return torch.where(branch, args[0], slope * args[0])


def _sloped(branch: Tensor, args: Any) -> Tensor:
    return torch.where(branch, args[0], args[1] * args[0])


def _bounded(branch: Tensor, args: Any) -> Tensor:
    return torch.where(branch.isnan(), args[0], branch)


def _chosen(branch: Tensor, args: Any) -> Tensor:
    return torch.where(branch, args[0], args[1])


def _picked(branch: Tensor, args: Any) -> tuple[Tensor, Tensor]:
    dim, keep = args[1], len(args) > 2 and args[2]
    index = branch if keep else branch.unsqueeze(dim)
    values = args[0].gather(dim, index)
    return (values if keep else values.squeeze(dim)), branch


def _pooled(branch: Tensor, args: Any) -> tuple[Tensor, Tensor]:
    return args[0].flatten(-2).gather(-1, branch.flatten(-2)).view(branch.shape), branch


_RULES: dict[str, tuple[Record | None, Rule | None]] = {
    "relu": (_positive, _masked),
    "relu_": (_positive, _masked_in_place),
    "leaky_relu": (_positive, _leaky),
    "_prelu_kernel": (_positive, _sloped),
    "abs": (_sign, _masked),
    "threshold": (_unchanged, _bounded),
    "hardtanh": (_unchanged, _bounded),
    "clamp.": (_unchanged, _bounded),
    "clamp.default": (_unchanged, _bounded),
    "clamp_min.default": (_unchanged, _bounded),
    "clamp_max.default": (_unchanged, _bounded),
    "maximum": (_first_is_larger, _chosen),
    "minimum": (_first_is_smaller, _chosen),
    "max.dim": (_indices, _picked),
    "min.dim": (_indices, _picked),
    "max_pool2d_with_indices": (_indices, _pooled),
}
_COMPARISONS = {"gt", "ge", "lt", "le", "eq", "ne", "argmax", "argmin", "sign", "round", "floor"}
_COMPARISONS |= {"ceil", "trunc", "isnan", "isfinite", "logical_not", "logical_and", "logical_or"}
