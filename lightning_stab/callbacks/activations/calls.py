"""What runs in a watched module: modules that begin and end, and functions that are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lightning_stab.callbacks._hooks.compiled import is_compiled_part
from lightning_stab.callbacks._hooks.hooks import is_transformed, without_modes
from lightning_stab.callbacks.activations.recognition import (
    WEIGHT_FUNCTIONS,
    UnitLayout,
    kind_of_call,
    kind_of_module,
    kind_of_recurrent,
    unit_layout_of,
)
from lightning_stab.callbacks.activations.record import (
    ActivationRecord,
    ActivationSite,
    PendingCall,
)
from lightning_stab.functional.activation_kinds import FUNCTIONS, ActivationKind
from lightning_stab.functional.layer_kinds import CONSUMERS, RECURRENT
from lightning_stab.functional.norms import local_shard


class ModuleRole:
    """What a module is to the tracer, found out once.

    Attributes:
        module: the module.
        name: its dotted name.
        kind: which activation it is, if any.
        has_weights: whether it is a weight layer, or a compiled part that may hold some.
        layout: what its units are, if it is a weight layer or a norm.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module = module
        self.name = name
        self.kind = kind_of_module(module)
        self.has_weights = isinstance(module, CONSUMERS)
        self.layout = unit_layout_of(module)
        if is_compiled_part(module) and next(module.parameters(), None) is not None:
            self.has_weights, self.layout = True, UnitLayout(id(module), None)

    @property
    def is_known(self) -> bool:
        """Whether it is measured as a whole, and not what it calls."""
        return self.kind is not None or self.has_weights


_UNKNOWN = UnitLayout(0, None)
_OUTSIDE = ModuleRole(nn.Module(), "")  # no module runs


class ActivationTracer:
    """Measures every activation that runs for training, while it is on.

    Attributes:
        record: what was measured.
        on: whether anything is measured.
        full: whether all statistics are taken, or dead units only.
        fused: names of recurrent modules whose inner activations are out of sight.
    """

    def __init__(self, *, moments: bool = True) -> None:
        self.record = ActivationRecord(moments=moments)
        self.on = False
        self.full = True
        self.fused: dict[str, None] = {}
        self._graph = ActivationGraph()
        self._scopes: list[tuple[ModuleRole, PendingCall | None]] = []
        self._layout = _UNKNOWN
        self._entered = False

    def begin_batch(self, *, full: bool) -> None:
        """Forget which module ran last."""
        self._scopes.clear()
        self._layout = _UNKNOWN
        self._entered = False
        self.full = full

    def pause(self) -> None:
        """Look at nothing, and let go of the autograd graph."""
        self.on = False
        self._graph.close()

    @without_modes
    def enter(self, role: ModuleRole, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Note that a module begins to run."""
        if not self.on:
            return
        self._entered = True
        pending = None
        if role.is_known and self._is_measured(module):
            if role.kind is not None and not role.has_weights:
                pending = self._begin_call(role.name, role.kind, args, kwargs)
            elif self.full:
                self._graph.mark_consumed((*args, *kwargs.values()))
        self._scopes.append((role, pending))

    @without_modes
    def leave(self, role: ModuleRole, module: nn.Module, args: Any, output: Any) -> None:
        """Note that a module has run; ``output`` is None where it raised."""
        pending = None
        while self._scopes:
            top, pending = self._scopes.pop()
            if top is role:
                break
        if output is None or not self._is_measured(module):
            return
        self._layout = role.layout or self._layout
        if isinstance(module, RECURRENT):
            self._add_recurrent(role, output)
        elif role.has_weights and self.full:
            self._graph.add_weight_output(output)
        if pending is not None:
            self._end_call(pending, output)

    @without_modes
    def follow(self, site: ActivationSite, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Look for units that are alive at a site that is known; nothing else needs be watched."""
        if self._is_measured(module):
            with torch.no_grad():
                values = _usable(_first_tensor(args, kwargs))
                if values is not None:
                    self.record.follow(site, values)

    def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run a torch function, and measure it if it is an activation or takes weights."""
        name, has_weights = FUNCTIONS.get(function), function in WEIGHT_FUNCTIONS
        role = self._scopes[-1][0] if self._scopes else _OUTSIDE
        # what runs before any watched module does is another callback's, on a copy of the module
        is_own = (name or has_weights) and self._entered and not role.is_known
        if not is_own or not self._is_measured(role.module):
            return function(*args, **kwargs)
        pending = None
        if name is not None:
            base = f"{role.name}.{name}".removeprefix(".")
            pending = self._begin_call(base, kind_of_call(name, args, kwargs), args, kwargs)
        elif self.full:
            self._graph.mark_consumed((*args, *kwargs.values()))
        output = function(*args, **kwargs)
        if pending is not None:
            self._end_call(pending, output)
        elif name is None and self.full:
            self._graph.add_weight_output(output)
        dimension = WEIGHT_FUNCTIONS.get(function)
        if dimension is not None:
            weights = [a for a in (*args, *kwargs.values()) if isinstance(a, nn.Parameter)]
            identity = id(weights[0]) if weights else hash((role.name, function))
            self._layout = UnitLayout(identity, dimension)
        return output

    def _is_measured(self, module: nn.Module) -> bool:
        """Say whether what runs now runs for training, for the first time, and on real tensors."""
        return (
            self.on
            and (torch.is_grad_enabled() or (module is not _OUTSIDE.module and module.training))
            and torch._C._current_graph_task_id() == -1  # else a recomputation in a backward pass
            and not is_transformed()
        )

    @without_modes
    def _begin_call(
        self, base: str, kind: ActivationKind, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> PendingCall | None:
        with torch.no_grad():
            values = _usable(_first_tensor(args, kwargs))
            if values is None:
                return None
            return self.record.begin_call(base, kind, self._layout, values, full=self.full)

    @without_modes
    def _end_call(self, pending: PendingCall, output: Any) -> None:
        with torch.no_grad():
            values = _usable(output)
            if values is not None:
                self.record.end_call(pending, values)
                self._graph.add_activation(output, pending.site)

    def _add_recurrent(self, role: ModuleRole, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        kind = kind_of_recurrent(role.module)
        if kind.name in ("lstm", "gru") or getattr(role.module, "num_layers", 1) > 1:
            self.fused[role.name] = None
        with torch.no_grad():
            values = _usable(first.data if isinstance(first, PackedSequence) else first)
            if values is not None:
                self.record.add_output(role.name, kind, values, full=self.full)


class ActivationGraph:
    """Which activations of a forward pass feed a weight layer, and which are outputs of the net.

    Followed backwards through the autograd graph from every input of a weight layer, each node
    once.
    """

    def __init__(self) -> None:
        self._open: dict[Any, ActivationSite] = {}
        self._passed: set[Any] = set()

    def add_activation(self, output: Tensor, site: ActivationSite) -> None:
        """Note the output of an activation; without a graph nothing is known of it."""
        if output.grad_fn is not None:
            self._open[output.grad_fn] = site

    @without_modes
    def mark_consumed(self, inputs: Iterable[Any]) -> None:
        """Note that a weight layer takes these, and with them every activation they come from."""
        waiting = [value.grad_fn for value in inputs if isinstance(value, Tensor)]
        while waiting:
            node = waiting.pop()
            if node is None or node in self._passed:
                continue
            self._passed.add(node)
            self._open.pop(node, None)
            waiting.extend(previous for previous, _ in node.next_functions)

    @without_modes
    def add_weight_output(self, output: Any) -> None:
        """Note the output of a weight layer, whose inputs were followed already."""
        if isinstance(output, Tensor) and output.grad_fn is not None:
            self._passed.add(output.grad_fn)

    def close(self) -> None:
        """Call what no weight layer took a head, and let go of the graph and its memory."""
        for site in self._open.values():
            site.is_head = True
        self._open.clear()
        self._passed.clear()


def _first_tensor(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the first tensor that a module is called with, or None."""
    return next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)


def _usable(value: Any) -> Tensor | None:
    """Return the values to measure: real numbers in memory, with a batch and a unit dimension."""
    if not isinstance(value, Tensor):
        return None
    values = local_shard(value.detach())
    fits = values.layout is torch.strided and values.is_floating_point()
    return values if fits and values.dim() > 1 and values.numel() and not values.is_meta else None
