"""A deep copy of anything that holds tensors, with every float of it in double precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_Copied = TypeVar("_Copied")
KEPT_ALIVE = -1  # no object's id
_DOUBLE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}


def double_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the double counterpart of a floating or complex ``dtype``; others stay as they are.

    Example:
        >>> double_dtype(torch.bfloat16), double_dtype(torch.int64)
        (torch.float64, torch.int64)
    """
    return _DOUBLE.get(dtype, dtype)


def double_copy(
    source: _Copied, replace: Mapping[int, Any] | None = None
) -> tuple[_Copied, dict[int, Any]]:
    """Return a deep copy of ``source`` in double precision, and what became of each object in it.

    Parameters, buffers and tensors in plain attributes, lists and metrics are all converted.
    Tied tensors stay tied. Cached tensors that still hang on an old graph are cut from it. What
    cannot be copied (a lock, an open file) is shared with the original.

    Args:
        source: a module, a batch, or any object that holds tensors.
        replace: stand-ins by the ``id`` of the object that they replace, such as a trainer.

    Returns:
        The copy, and a mapping from the ``id`` of each original object to its copy.

    Example:
        >>> twin, _ = double_copy(torch.nn.Linear(2, 1))
        >>> twin.weight.dtype
        torch.float64
    """
    memo: dict[int, Any] = dict(replace or {})
    with _CutGraphs():
        try:
            twin = copy.deepcopy(source, memo)
        except Exception:
            memo = dict(replace or {})
            twin = _copy_piece_by_piece(source, memo)
    for tensor in _unique(value for value in memo.values() if isinstance(value, Tensor)):
        _convert(tensor)
    return twin, memo


def _convert(tensor: Tensor) -> None:
    if tensor.is_sparse or tensor.dtype not in _DOUBLE:
        return
    tensor.data = tensor.data.to(_DOUBLE[tensor.dtype])


def _unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


class _CutGraphs(TorchFunctionMode):
    """Lets ``deepcopy`` copy the values of tensors that are not leaves of a graph."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args[0], args[1]
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _copy_piece_by_piece(source: Any, memo: dict[int, Any]) -> Any:
    """Copy attribute by attribute, and share what refuses to be copied."""
    if id(source) in memo:
        return memo[id(source)]
    if isinstance(source, nn.Module):
        twin = source.__class__.__new__(source.__class__)
        memo[id(source)] = twin
        for name, value in vars(source).items():
            twin.__dict__[name] = _copy_piece_by_piece(value, memo)
        return twin
    if type(source) in (dict, list, tuple) and _holds_modules(source):
        return _copy_container(source, memo)
    attempt = dict(memo)  # a failed copy must not leave half-filled objects in the memo
    try:
        twin = copy.deepcopy(source, attempt)
    except Exception:
        memo[id(source)] = source
        return source
    memo.update(attempt)
    # deepcopy notes ids of what it makes on the way, its memo's own too: while these are in use,
    # their owners must live, or another object would be taken for one of them
    memo.setdefault(KEPT_ALIVE, []).append(attempt)
    return twin


def _holds_modules(container: Any) -> bool:
    values = container.values() if isinstance(container, dict) else container
    return any(isinstance(value, nn.Module) for value in values)


def _copy_container(source: Any, memo: dict[int, Any]) -> Any:
    if isinstance(source, dict):
        return {key: _copy_piece_by_piece(value, memo) for key, value in source.items()}
    return type(source)(_copy_piece_by_piece(value, memo) for value in source)
