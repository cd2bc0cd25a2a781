"""What a forward pass may change besides its result, taken once and put back before each run."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

_STRUCTURE = {"_parameters", "_buffers", "_modules"}
_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, type)
_DATA = (Dataset, DataLoader)  # large, and not for a forward pass to change


class ModuleState:
    """The buffers and plain attributes of every submodule, restorable any number of times.

    Parameters are left alone: whoever perturbs them puts them back. Random generators kept in
    attributes are put back too.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        self._shared: dict[int, Any] = {id(o): o for o in (*parts, *module.parameters())}
        self._buffers = [(part, dict(part._buffers), _values(part._buffers)) for part in parts]
        self._plain = [(part, _attributes(part, mutable=False)) for part in parts]
        mutable = [(part, _attributes(part, mutable=True)) for part in parts]
        self._mutable = _copies([pair for pair in mutable if pair[1]], self._shared)
        self._empty = [
            value
            for _, attributes in self._plain
            for value in attributes.values()
            if _is_empty_container(value)
        ]
        self._requires_grad = [(p, p.requires_grad) for p in module.parameters()]

    def restore(self) -> None:
        """Put buffers, attributes, modes and ``requires_grad`` back, and clear gradients."""
        for part, objects, values in self._buffers:
            part._buffers.clear()
            part._buffers.update(objects)
            for name, value in values.items():
                _put_back(objects[name], value)
        for part, attributes in self._plain:
            for name in vars(part).keys() - attributes.keys() - _STRUCTURE:
                del part.__dict__[name]
            part.__dict__.update(attributes)
        for container in self._empty:
            if container:
                container.clear()
        for part, attributes in _copies(self._mutable, self._shared):
            part.__dict__.update(attributes)
        for parameter, requires_grad in self._requires_grad:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None


def _values(buffers: dict[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: b.detach().clone() for name, b in buffers.items() if b is not None}


def _put_back(buffer: Tensor | None, value: Tensor) -> None:
    if buffer is None:
        return
    if buffer.shape == value.shape and buffer.dtype == value.dtype:
        buffer.data.copy_(value)
    else:
        buffer.data = value.clone()


def _attributes(part: nn.Module, *, mutable: bool) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(part).items()
        if name not in _STRUCTURE and mutable is not _needs_no_copy(value)
    }


def _needs_no_copy(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_needs_no_copy, value))
    return isinstance(value, (*_PLAIN, *_DATA)) or callable(value) or _is_empty_container(value)


def _is_empty_container(value: Any) -> bool:
    return type(value) in (dict, OrderedDict, list, set) and not value


def _copies(
    attributes: list[tuple[nn.Module, dict[str, Any]]], shared: dict[int, Any]
) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Copy all values together, so that objects that two attributes share stay shared."""
    if not attributes:
        return []
    try:
        return copy.deepcopy(attributes, dict(shared))
    except Exception:
        return [
            (part, {name: _copy_or_share(value, shared) for name, value in values.items()})
            for part, values in attributes
        ]


def _copy_or_share(value: Any, shared: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, dict(shared))
    except Exception:
        return value
