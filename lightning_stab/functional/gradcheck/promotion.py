"""Explicit low precision in a module's code, lifted to double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lightning_stab.functional.gradcheck.double_precision import double_dtype

LOW_PRECISION = (torch.float16, torch.bfloat16, torch.float32, torch.complex32, torch.complex64)
_CASTS = {
    "float": torch.float64,
    "half": torch.float64,
    "bfloat16": torch.float64,
    "cfloat": torch.complex128,
    "chalf": torch.complex128,
}
_TYPE_NAMES = ("FloatTensor", "HalfTensor", "BFloat16Tensor")


def call_in_double(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, bool]:
    """Call a function of torch so that it neither takes nor gives low precision.

    Returns:
        The result, and whether anything had to be lifted.
    """
    name = getattr(func, "__name__", "")
    if name in _CASTS and len(args) == 1 and isinstance(args[0], Tensor):
        return args[0].to(_CASTS[name]), True
    lifted = _names_low_precision(args, kwargs)
    if lifted:
        args, kwargs = tuple(map(_lifted, args)), {k: _lifted(v) for k, v in kwargs.items()}
    try:
        result = func(*args, **kwargs)
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        args, kwargs = tree_map_only(Tensor, as_double, (args, kwargs))
        result, lifted = func(*args, **kwargs), True
    if isinstance(result, Tensor) and result.dtype in LOW_PRECISION and not changes(name):
        return as_double(result), True
    return result, lifted


def as_double(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in double precision if it holds floats or complex numbers."""
    return tensor.to(double_dtype(tensor.dtype))


def changes(name: str) -> bool:
    """Tell whether a function of this name writes into its first argument.

    Example:
        >>> changes("add_"), changes("add"), changes("__setitem__")
        (True, False, True)
    """
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in _NOT_IN_PLACE)
    return name.endswith("_")


_NOT_IN_PLACE = {"__invert__", "__index__", "__int__", "__init__", "__instancecheck__", "__iter__"}


def _names_low_precision(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(map(_is_low, args)) or any(map(_is_low, kwargs.values()))


def _is_low(value: Any) -> bool:
    if isinstance(value, torch.dtype):
        return value in LOW_PRECISION
    return isinstance(value, str) and value.endswith(_TYPE_NAMES)


def _lifted(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return double_dtype(value)
    return torch.float64 if _is_low(value) else value
