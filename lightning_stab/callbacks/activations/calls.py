"""What runs in a watched module, told by its hooks: modules entered and left, functions called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lightning_stab.callbacks.activations.graph import ActivationGraph
from lightning_stab.callbacks.activations.recognition import (
    WEIGHT_FUNCTIONS,
    Maker,
    kind_of_call,
    kind_of_module,
    kind_of_recurrent,
    maker_of,
)
from lightning_stab.callbacks.activations.record import ActivationRecord, Pending, Site
from lightning_stab.functional.activation_kinds import FUNCTIONS, ActivationKind
from lightning_stab.functional.layer_kinds import CONSUMERS, RECURRENT
from lightning_stab.functional.norms import local


@dataclass(frozen=True)
class Role:
    """What a module is to the watch, found out once.

    Attributes:
        module: the module.
        name: its dotted name.
        kind: which activation it is, if any.
        consumes: whether it is a weight layer.
        maker: what it makes, if it is a weight layer or a norm.
    """

    module: nn.Module
    name: str
    kind: ActivationKind | None
    consumes: bool
    maker: Maker | None

    @property
    def is_known(self) -> bool:
        """Whether it is looked at as a whole, and not at what it calls."""
        return self.kind is not None or self.consumes


def role_of(module: nn.Module, name: str) -> Role:
    """Return what a module is to the watch."""
    consumes = isinstance(module, CONSUMERS)
    return Role(module, name, kind_of_module(module), consumes, maker_of(module))


_UNKNOWN = Maker(0, None)
_OUTSIDE = Role(nn.Module(), "", None, consumes=False, maker=None)  # no module runs


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
        self._scopes: list[tuple[Role, Pending | None]] = []
        self._maker = _UNKNOWN
        self._entered = False

    def begin_batch(self, *, full: bool) -> None:
        """Forget which module ran last."""
        self._scopes.clear()
        self._maker = _UNKNOWN
        self._entered = False
        self.full = full

    def pause(self) -> None:
        """Look at nothing, and let go of the autograd graph."""
        self.on = False
        self._graph.close()

    def enter(self, role: Role, args: Any, kwargs: Any) -> None:
        """Note that a module begins to run."""
        if not self.on:
            return
        self._entered = True
        pending = None
        if role.is_known and self._watches(role.module):
            if role.consumes:
                self._consume(args, kwargs)
            elif role.kind is not None:
                pending = self._before(role.name, role.kind, _first_tensor(args, kwargs))
        self._scopes.append((role, pending))

    def leave(self, role: Role, output: Any) -> None:
        """Note that a module has run; ``output`` is None where it raised."""
        pending = None
        while self._scopes:
            top, pending = self._scopes.pop()
            if top is role:
                break
        if output is None or not self._watches(role.module):
            return
        self._maker = role.maker or self._maker
        if isinstance(role.module, RECURRENT):
            self._recurrent(role, output)
        elif role.consumes:
            self._weighed(output)
        if pending is not None:
            self._after(pending, output)

    def follow(self, role: Role, site: Site, args: Any, kwargs: Any) -> None:
        """Look for units that are alive at a site that is known; nothing else needs be watched."""
        if self._watches(role.module):
            with torch.no_grad():
                values = _usable(_first_tensor(args, kwargs))
                if values is not None:
                    self.record.follow(site, values)

    def function_called(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run an activation or weight function, and look at it."""
        role = self._scopes[-1][0] if self._scopes else _OUTSIDE
        # what runs before any watched module does is another callback's, on a copy of the module
        if role.is_known or not self._entered or not self._watches(role.module):
            return function(*args, **kwargs)
        if function in WEIGHT_FUNCTIONS:
            return self._weight_function(role, function, args, kwargs)
        name = FUNCTIONS[function]
        base = f"{role.name}.{name}" if role.name else name
        kind = kind_of_call(name, args, kwargs)
        pending = self._before(base, kind, _first_tensor(args, kwargs))
        output = function(*args, **kwargs)
        if pending is not None:
            self._after(pending, output)
        return output

    def _watches(self, module: nn.Module) -> bool:
        """Say whether what runs now runs for training, for the first time, and on real tensors."""
        return (
            self.on
            and (torch.is_grad_enabled() or (module is not _OUTSIDE.module and module.training))
            and torch._C._current_graph_task_id() == -1  # else a recomputation in a backward pass
            and torch._C._functorch.peek_interpreter_stack() is None
        )

    def _before(self, base: str, kind: ActivationKind, inputs: Any) -> Pending | None:
        with torch.no_grad(), torch._C.DisableTorchFunction():
            values = _usable(inputs)
            if values is None:
                return None
            return self.record.before(base, kind, self._maker, values, self.full)

    def _after(self, pending: Pending, output: Any) -> None:
        if not self.full:
            return
        with torch.no_grad(), torch._C.DisableTorchFunction():
            values = _usable(output)
            if values is not None:
                self.record.after(pending, values)
        if values is not None:
            self._graph.made(output, pending.site)

    def _consume(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        for value in (*args, *kwargs.values()) if self.full else ():
            if isinstance(value, Tensor):
                self._graph.consumed(value)

    def _weighed(self, output: Any) -> None:
        if self.full:
            self._graph.weighed(output)

    def _weight_function(
        self, role: Role, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        self._consume(args, kwargs)
        output = function(*args, **kwargs)
        self._weighed(output)
        dimension = WEIGHT_FUNCTIONS[function]
        if dimension is not None:
            weights = [a for a in (*args, *kwargs.values()) if isinstance(a, nn.Parameter)]
            identity = id(weights[0]) if weights else hash((role.name, function))
            self._maker = Maker(identity, dimension)
        return output

    def _recurrent(self, role: Role, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        kind = kind_of_recurrent(role.module)
        if kind.name in ("lstm", "gru") or getattr(role.module, "num_layers", 1) > 1:
            self.fused[role.name] = None
        with torch.no_grad(), torch._C.DisableTorchFunction():
            values = _usable(first.data if isinstance(first, PackedSequence) else first)
            if values is not None:
                self.record.output_only(role.name, kind, values, self.full)


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
