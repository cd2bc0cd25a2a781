"""What a forward pass may change besides its result, taken once and put back before each run."""

from __future__ import annotations

import copy
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_stab.functional.gradcheck.class_attributes import ClassAttributes

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, type)
_DATA = (Dataset, DataLoader)  # large, and not for a forward pass to change
_Attributes = list[tuple[nn.Module, dict[str, Any]]]


class ModuleState:
    """The buffers and plain attributes of every submodule, restorable any number of times.

    The values of parameters are left alone: whoever perturbs them puts them back. Random
    generators kept in attributes are put back too, and what stands on the classes (``classes``).
    """

    def __init__(self, module: nn.Module) -> None:
        parts, buffers = list(module.modules()), list(module.buffers())
        self.classes = ClassAttributes(module)
        self._shared: dict[int, Any] = {id(o): o for o in (*parts, *module.parameters(), *buffers)}
        self._values = [(buffer, buffer.detach().clone()) for buffer in buffers]
        self._objects: _Attributes = [(part, dict(vars(part))) for part in parts]
        self._containers = [
            (value, copy.copy(value))
            for _, attributes in self._objects
            for value in attributes.values()
            if self._is_registry(value)
        ]
        mutable = [
            (part, {n: v for n, v in attributes.items() if not self._needs_no_copy(v)})
            for part, attributes in self._objects
        ]
        self._mutable = self._copies([pair for pair in mutable if pair[1]])
        self._requires_grad = [(p, p.requires_grad) for p in module.parameters()]

    def restore(self) -> None:
        """Put buffers, attributes, modes and ``requires_grad`` back, and clear gradients."""
        self.classes.renew()
        for part, attributes in self._objects:
            for name in vars(part).keys() - attributes.keys():
                del part.__dict__[name]
            part.__dict__.update(attributes)
        for container, content in self._containers:
            container.clear()
            if content:
                container.update(content)
        for buffer, value in self._values:
            if buffer.shape == value.shape and buffer.dtype == value.dtype:
                buffer.data.copy_(value)
            else:
                buffer.data = value.clone()
        for part, attributes in self._copies(self._mutable):
            part.__dict__.update(attributes)
        for parameter, requires_grad in self._requires_grad:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None

    def _is_registry(self, value: Any) -> bool:
        """Say whether a container is empty, or holds a module's own tensors and parts only."""
        if type(value) not in (dict, OrderedDict, list, set):
            return False
        is_own = isinstance(value, dict) and all(
            each is None or id(each) in self._shared for each in value.values()
        )
        return is_own or not value

    def _needs_no_copy(self, value: Any) -> bool:
        if isinstance(value, tuple):
            return all(map(self._needs_no_copy, value))
        return isinstance(value, (*_PLAIN, *_DATA)) or callable(value) or self._is_registry(value)

    def _copies(self, attributes: _Attributes) -> _Attributes:
        """Copy all values together, so that objects that two attributes share stay shared."""
        if not attributes:
            return []
        try:
            return copy.deepcopy(attributes, dict(self._shared))
        except Exception:  # anything may refuse to be copied; the rest is copied without it
            copies = [(part, dict(values)) for part, values in attributes]
        for _, values in copies:
            for name, value in values.items():
                with suppress(Exception):  # see above; it stays shared
                    values[name] = copy.deepcopy(value, dict(self._shared))
        return copies
