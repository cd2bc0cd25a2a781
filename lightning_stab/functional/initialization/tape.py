"""What a forward pass really does: every tensor operation with the operations that fed it.

A tensor is known by the memory that it shows (storage, offset, shape, strides), because autograd
may wrap one value in several Python objects. An operation that writes in place takes over its
storage; a view that no operation has made is taken for what was last written there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_stab.functional.layer_kinds import RECURRENT, is_norm
from lightning_stab.functional.norms import storage_of


@dataclass(eq=False)
class Operation:
    """One operation of the forward pass.

    Attributes:
        operator: the aten operator.
        arguments: its positional arguments.
        keywords: its keyword arguments.
        sources: for each tensor among the arguments, the operation that made it, or None.
        scope: the class name of the innermost module in whose forward it ran, if that has no parts.
        mark: ``norm`` or ``recurrent`` where a module of that kind returned its output.
        consumers: the operations that it feeds.
        acts_pointwise: whether it was seen to act on each element alone; None before it was tried.
    """

    operator: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    tensors: list[Tensor]
    sources: list[Operation | None]
    scope: str
    outputs: list[Tensor] = field(default_factory=list)
    mark: str = ""
    consumers: list[Operation] = field(default_factory=list)
    acts_pointwise: bool | None = None

    @property
    def name(self) -> str:
        """The operator's name without namespace and overload, such as ``relu``."""
        return str(self.operator._schema.name).split("::")[-1].removesuffix("_")


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's `__init_subclass__`
    """Records the operations of a module's forward pass while it is entered.

    Use it on a copy of the module: it hangs hooks on its parts, and keeps every tensor alive.
    """

    def __init__(self, module: nn.Module) -> None:
        initialize: Any = super().__init__  # torch gives it no types
        initialize()
        self.operations: list[Operation] = []
        self._exact: dict[tuple[Any, ...], Operation] = {}
        self._latest: dict[Any, Operation] = {}
        self._scopes = [""]
        self._handles = ExitStack()
        for part in module.modules():
            for handle in (
                part.register_forward_pre_hook(self._enter),
                part.register_forward_hook(self._leave, always_call=True),
            ):
                self._handles.callback(handle.remove)

    def close(self) -> None:
        """Remove the hooks."""
        self._handles.close()

    def producer(self, tensor: Tensor) -> Operation | None:
        """Return the operation that made a tensor, or None for parameters and outside data."""
        key = _exact_key(tensor)
        return self._exact.get(key) or self._latest.get(key[0])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and record it, unless a backward pass calls it."""
        kwargs = kwargs or {}
        if torch._C._current_autograd_node() is not None:
            return func(*args, **kwargs)
        tensors = _tensors((args, kwargs))
        sources = [self.producer(tensor) for tensor in tensors]
        operation = Operation(func, tuple(args), kwargs, tensors, sources, self._scopes[-1])
        result = func(*args, **kwargs)
        operation.outputs = _tensors(result)
        self._record(operation)
        return result

    def _record(self, operation: Operation) -> None:
        self.operations.append(operation)
        for source in operation.sources:
            if source is not None and operation not in source.consumers:
                source.consumers.append(operation)
        read = {_exact_key(tensor)[0] for tensor in operation.tensors}
        for output in operation.outputs:
            key = _exact_key(output)
            if operation.operator._schema.is_mutable:
                self._exact = {k: v for k, v in self._exact.items() if k[0] != key[0]}
            if key[0] not in read or operation.operator._schema.is_mutable:
                self._latest[key[0]] = operation
            self._exact[key] = operation

    def _enter(self, part: nn.Module, inputs: Any) -> None:
        inner = next(part.children(), None) is not None
        self._scopes.append("" if inner else type(part).__name__)

    def _leave(self, part: nn.Module, inputs: Any, output: Any) -> None:
        self._scopes.pop()
        mark = "recurrent" if isinstance(part, RECURRENT) else "norm" if is_norm(part) else ""
        for tensor in _tensors(output) if mark else ():
            producer = self.producer(tensor)
            if producer is not None:
                producer.mark = mark


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _exact_key(tensor: Tensor) -> tuple[Any, ...]:
    memory = storage_of(tensor)
    if memory == id(tensor):
        return (memory,)
    return (memory, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
