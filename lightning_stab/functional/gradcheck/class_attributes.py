"""What stands on classes instead of instances: exchanged for copies while a module's copy runs.

A copied module still has the classes of the original, so that a list, a dict or a counter on one
of them belongs to both. The same goes for the classes of custom ``autograd.Function``.
"""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.utils.data import DataLoader, Dataset

from lightning_stab.functional.gradcheck.double_precision import deep_copy

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, type)
_SHARED = (*_PLAIN, ModuleType, Dataset, DataLoader)
_LIBRARIES = {"torch", "lightning", "pytorch_lightning", "lightning_fabric", "lightning_stab"}
_LIBRARIES |= {"torchmetrics", "builtins", "abc", "typing"}


class ClassAttributes:
    """The data attributes of classes; as a context manager it puts them back, the very objects.

    Between, `renew` gives the classes fresh copies of what can change. Attributes that are set
    meanwhile are taken away; what cannot be copied is shared.
    """

    def __init__(self, module: nn.Module) -> None:
        classes = dict.fromkeys(cls for part in module.modules() for cls in type(part).__mro__)
        classes |= dict.fromkeys(subclasses(Function))
        own = (cls for cls in classes if cls.__module__.partition(".")[0] not in _LIBRARIES)
        self._found = [(cls, _data_of(cls)) for cls in own]

    def __enter__(self) -> ClassAttributes:
        self.renew()
        return self

    def __exit__(self, *error: object) -> None:
        for cls, values in self._found:
            _set(cls, values)

    def renew(self) -> None:
        """Let every attribute be as it was, a copy where it can change."""
        for cls, values in self._found:
            _set(cls, {name: _copied(value) for name, value in values.items()})


def subclasses(base: type) -> list[Any]:
    """Return the classes under ``base``, at any depth, each once."""
    direct: list[Any] = base.__subclasses__()
    return list(dict.fromkeys([*direct, *(c for each in direct for c in subclasses(each))]))


def _data_of(cls: type) -> dict[str, Any]:
    """Return what a class holds besides its methods, properties and the interpreter's own."""
    return {
        name: value
        for name, value in vars(cls).items()
        if not (name.startswith(("__", "_abc_")) or callable(value) or hasattr(value, "__get__"))
        or isinstance(value, nn.Module)
    }


def _set(cls: type, values: dict[str, Any]) -> None:
    for name in _data_of(cls).keys() - values.keys():
        delattr(cls, name)
    for name, value in values.items():
        if vars(cls).get(name, values) is not value:
            setattr(cls, name, value)


def _copied(value: Any) -> Any:
    if _never_changes(value):
        return value
    with suppress(Exception):  # anything may refuse to be copied
        return deep_copy(value)[0]
    return value


def _never_changes(value: Any) -> bool:
    """Say so of plain values, and of objects without content: those are told by identity."""
    if isinstance(value, (tuple, frozenset)):
        return all(map(_never_changes, value))
    is_empty = not hasattr(value, "__len__") and getattr(value, "__dict__", None) == {}
    return isinstance(value, _SHARED) or type(value) is object or is_empty
