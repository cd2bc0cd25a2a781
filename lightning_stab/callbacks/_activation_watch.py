"""What runs in a watched module, told by its hooks: modules entered and left, functions called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lightning_stab.callbacks._activation_graph import ActivationGraph
from lightning_stab.callbacks._activation_names import (
    CONSUMERS,
    FUNCTIONS,
    RECURRENT,
    WEIGHT_FUNCTIONS,
    Maker,
    kind_of_call,
    kind_of_module,
    kind_of_recurrent,
    maker_of,
)
from lightning_stab.callbacks._activation_record import ActivationRecord, Pending
from lightning_stab.functional.activation_kinds import ActivationKind
from lightning_stab.functional.norms import local


@dataclass
class _Scope:
    """A module that runs now; a known one is looked at as a whole, not at what it calls."""

    module: nn.Module | None
    name: str
    is_known: bool = False
    pending: Pending | None = None


class ActivationWatch:
    """Looks at every activation that runs for training, while it is on.

    Attributes:
        record: what was seen.
        on: whether anything is looked at.
        full: whether all statistics are taken, or dead units only.
        fused: names of recurrent modules whose inner activations are out of sight.
    """

    def __init__(self) -> None:
        self.record = ActivationRecord()
        self.on = False
        self.full = True
        self.fused: dict[str, None] = {}
        self._graph = ActivationGraph()
        self._scopes: list[_Scope] = []
        self._maker: Maker | None = None

    def begin_batch(self, *, full: bool) -> None:
        """Let the next call of each module be its first."""
        self.record.begin_batch()
        self._scopes.clear()
        self._maker = None
        self.full = full

    def pause(self) -> None:
        """Look at nothing, and let go of the autograd graph."""
        self.on = False
        self._graph.clear()

    def enter(self, module: nn.Module, name: str, args: Any, kwargs: Any) -> None:
        """Note that a module begins to run."""
        if not self.on:
            return
        kind = kind_of_module(module)
        scope = _Scope(module, name, is_known=kind is not None or isinstance(module, CONSUMERS))
        self._scopes.append(scope)
        if not self._watches(module):
            return
        if isinstance(module, CONSUMERS):
            self._consume(args, kwargs)
        elif kind is not None:
            inputs = _usable(_first_tensor(args, kwargs))
            scope.pending = None if inputs is None else self._before(name, kind, inputs)

    def leave(self, module: nn.Module, output: Any) -> None:
        """Note that a module has run; ``output`` is None where it raised."""
        places = [i for i, scope in enumerate(self._scopes) if scope.module is module]
        if not places or not self.on:
            return
        scope = self._scopes[places[-1]]
        del self._scopes[places[-1] :]
        if output is None or not self._watches(module):
            return
        self._maker = maker_of(module) or self._maker
        if isinstance(module, RECURRENT):
            self._recurrent(module, scope.name, output)
        elif isinstance(module, CONSUMERS):
            self._graph.weighed(output)
        if scope.pending is not None:
            self._after(scope.pending, output)

    def function_called(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run an activation or weight function, and look at it."""
        scope = self._scopes[-1] if self._scopes else _Scope(None, "")
        if scope.is_known or not self._watches(scope.module):
            return function(*args, **kwargs)
        if function in WEIGHT_FUNCTIONS:
            return self._weight_function(scope, function, args, kwargs)
        inputs = _usable(_first_tensor(args, kwargs))
        if inputs is None:
            return function(*args, **kwargs)
        name = FUNCTIONS[function]
        base = f"{scope.name}.{name}" if scope.name else name
        pending = self._before(base, kind_of_call(name, args, kwargs), inputs)
        output = function(*args, **kwargs)
        self._after(pending, output)
        return output

    def _watches(self, module: nn.Module | None) -> bool:
        """Say whether what runs now runs for training, for the first time, and on real tensors."""
        return (
            self.on
            and (torch.is_grad_enabled() or (module is not None and module.training))
            and torch._C._current_graph_task_id() == -1  # else a recomputation in a backward pass
            and torch._C._functorch.peek_interpreter_stack() is None
        )

    def _before(self, base: str, kind: ActivationKind, inputs: Tensor) -> Pending:
        with torch.no_grad():
            return self.record.before(base, kind, self._maker, inputs, self.full)

    def _after(self, pending: Pending, output: Any) -> None:
        values = _usable(output)
        if values is not None:
            with torch.no_grad():
                self.record.after(pending, values)
            self._graph.made(output, pending.site)

    def _consume(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor):
                self._graph.consumed(value)

    def _weight_function(
        self, scope: _Scope, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        self._consume(args, kwargs)
        output = function(*args, **kwargs)
        self._graph.weighed(output)
        dimension = WEIGHT_FUNCTIONS[function]
        if dimension is not None:
            weights = [a for a in (*args, *kwargs.values()) if isinstance(a, nn.Parameter)]
            identity = id(weights[0]) if weights else hash((scope.name, function))
            self._maker = Maker(identity, dimension)
        return output

    def _recurrent(self, module: nn.Module, name: str, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        values = _usable(first.data if isinstance(first, PackedSequence) else first)
        kind = kind_of_recurrent(module)
        if kind.name in ("lstm", "gru") or getattr(module, "num_layers", 1) > 1:
            self.fused[name] = None
        if values is not None:
            with torch.no_grad():
                self.record.output_only(name, kind, values, self.full)


def _first_tensor(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the first tensor that a module is called with, or None."""
    return next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)


def _usable(value: Any) -> Tensor | None:
    """Return the values to look at: real numbers in memory, with a batch and a unit dimension."""
    if not isinstance(value, Tensor):
        return None
    values = local(value.detach())
    fits = values.layout is torch.strided and values.is_floating_point()
    return values if fits and values.dim() > 1 and values.numel() and not values.is_meta else None
