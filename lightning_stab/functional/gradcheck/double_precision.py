"""Everything in double precision: a deep copy of what holds tensors, and calls of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from lightning_stab.functional.norms import lack_double

_Copied = TypeVar("_Copied")
_KEPT_ALIVE = -1  # no object's id
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_COMPLEX = (torch.complex32, torch.complex64)
_DOUBLE = dict.fromkeys(_FLOATS, torch.float64) | dict.fromkeys(_COMPLEX, torch.complex128)
LOW_PRECISION = frozenset(_DOUBLE)
_CASTS = dict.fromkeys(("float", "half", "bfloat16"), torch.float64)
_CASTS |= dict.fromkeys(("cfloat", "chalf"), torch.complex128)
_TYPE_NAMES = ("FloatTensor", "HalfTensor", "BFloat16Tensor")
_NOT_IN_PLACE = {"__invert__", "__index__", "__int__", "__init__", "__instancecheck__", "__iter__"}


def double_copy(
    source: _Copied, replace: Mapping[int, Any] | None = None
) -> tuple[_Copied, dict[int, Any]]:
    """Return a deep copy of ``source`` in double precision, and what became of each object in it.

    Parameters, buffers and tensors in plain attributes, lists and metrics are all converted. What
    is on a device without double precision (Apple's MPS) comes to the CPU.

    Args:
        source: a module, a batch, or any object that holds tensors.
        replace: what takes the place of an object, such as a trainer, by its ``id``.

    Returns:
        The copy, and a mapping from the ``id`` of each original object to its copy.

    Example:
        >>> module_copy, _ = double_copy(torch.nn.Linear(2, 1))
        >>> module_copy.weight.dtype
        torch.float64
    """
    result, memo = deep_copy(source, replace)
    tensors = {id(value): value for value in memo.values() if isinstance(value, Tensor)}
    for tensor in tensors.values():
        if lack_double([tensor]):
            tensor.data = tensor.data.cpu()
        if not tensor.is_sparse and tensor.dtype in _DOUBLE:
            tensor.data = tensor.data.to(_DOUBLE[tensor.dtype])
    return result, memo


def deep_copy(
    source: _Copied, replace: Mapping[int, Any] | None = None
) -> tuple[_Copied, dict[int, Any]]:
    """Return a deep copy of ``source`` as `double_copy` does, in the precision that it has.

    Tied tensors stay tied. Cached tensors that still hang on an old graph are cut from it. What
    cannot be copied (a lock, an open file) is shared with the original, but no tensor is, and no
    module whose class has a ``__deepcopy__`` of its own that refuses.
    """
    memo: dict[int, Any] = dict(replace or {})
    with _CutGraphs():
        try:
            return copy.deepcopy(source, memo), memo
        except Exception:  # anything may refuse to be copied; the rest is copied without it
            memo = dict(replace or {})
            return _copy_piece_by_piece(source, memo), memo


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
    if isinstance(source, nn.Module) and not hasattr(type(source), "__deepcopy__"):
        module_copy = memo[id(source)] = source.__class__.__new__(source.__class__)
        for name, value in vars(source).items():
            module_copy.__dict__[name] = _copy_piece_by_piece(value, memo)
        return module_copy
    if type(source) is dict and any(isinstance(v, nn.Module) for v in source.values()):
        return {key: _copy_piece_by_piece(value, memo) for key, value in source.items()}
    if type(source) in (list, tuple) and any(isinstance(v, nn.Module) for v in source):
        return type(source)(_copy_piece_by_piece(value, memo) for value in source)
    attempt = dict(memo)  # a failed copy must not leave half-filled objects in the memo
    try:
        result = copy.deepcopy(source, attempt)
    except Exception:  # see above
        if isinstance(source, (Tensor, nn.Module)):
            raise
        memo[id(source)] = source
        return source
    memo.update(attempt)
    # deepcopy notes ids of what it makes on the way, its memo's own too: while these are in use,
    # their owners must live, or another object would be taken for one of them
    memo.setdefault(_KEPT_ALIVE, []).append(attempt)
    return result


def call_in_double(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, bool]:
    """Call a function of torch in double; return the result, and whether anything was lifted."""
    name = getattr(func, "__name__", "")
    if name in _CASTS and len(args) == 1 and isinstance(args[0], Tensor):
        return args[0].to(_CASTS[name]), True
    lifted = any(map(_is_low, (*args, *kwargs.values())))
    if lifted:
        args, kwargs = tuple(map(_lift, args)), {k: _lift(v) for k, v in kwargs.items()}
    try:
        result = func(*args, **kwargs)
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        args, kwargs = tree_map_only(Tensor, lambda t: t.to(_lift(t.dtype)), (args, kwargs))
        result, lifted = func(*args, **kwargs), True
    if isinstance(result, Tensor) and result.dtype in LOW_PRECISION and not is_in_place(name):
        return result.to(_DOUBLE[result.dtype]), True
    return result, lifted


def is_in_place(name: str) -> bool:
    """Say whether a function of this name writes into its first argument.

    Example:
        >>> is_in_place("add_"), is_in_place("add"), is_in_place("__setitem__")
        (True, False, True)
    """
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in _NOT_IN_PLACE)
    return name.endswith("_")


def _is_low(value: Any) -> bool:
    if isinstance(value, torch.dtype):
        return value in LOW_PRECISION
    return isinstance(value, str) and value.endswith(_TYPE_NAMES)


def _lift(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return _DOUBLE.get(value, value)
    return torch.float64 if _is_low(value) else value
