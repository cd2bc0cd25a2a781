"""Passes of a batch through copies of the module: recorded, measured, corrected on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules.lazy import LazyModuleMixin

from lightning_stab.functional.autograd_graph import first_edges
from lightning_stab.functional.initialization.flow import Flow
from lightning_stab.functional.initialization.tape import Tape
from lightning_stab.functional.names import plain_name
from lightning_stab.functional.random_states import preserve_random_states

LSUV, LSUV_CENTERED, RESCALE, INPUT_RANGE = "lsuv", "lsuv_centered", "rescale", "input range"
_HEALTHY = (0.5, 2.0)


@dataclass(frozen=True)
class Program:
    """What a batch does to a module.

    Args:
        copy: returns a copy of the module that shares nothing with it; a second call may take
            the memory of the first copy.
        loss: runs the batch through such a copy; returns the loss, or None if there is none.
    """

    copy: Callable[[], nn.Module]
    loss: Callable[[nn.Module], Tensor | None]


@dataclass
class Readings:
    """What one pass measured, by the name of the layer.

    Attributes:
        signal: the standard deviation over the batch of a unit's output, RMS over units.
        gradient: the RMS of the loss's gradient with respect to the layer's output.
        scale: the factor that the layer's weight was multiplied with.
        shift: what its bias was set to.
    """

    signal: dict[str, float] = field(default_factory=dict)
    gradient: dict[str, float] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)
    shift: dict[str, Tensor] = field(default_factory=dict)


def trace(program: Program, layers: Sequence[str]) -> tuple[Flow, Readings]:
    """Return the flow of data through a copy of the module, and the readings of its layers."""
    module_copy = program.copy()
    tape = Tape(module_copy)
    try:
        readings = _run(program, module_copy, layers, {}, tape)
    finally:
        tape.close()
    return Flow(tape, module_copy), readings


def measure(program: Program, layers: Sequence[str], corrections: Mapping[str, str]) -> Readings:
    """Return the readings of one pass that corrects each layer before its output is used.

    Args:
        program: the batch.
        layers: names of the layers to read.
        corrections: which layers are corrected, and how: ``rescale`` and ``lsuv`` to a standard
            deviation of 1, ``lsuv_centered`` to that and a mean of 0 for each unit, ``input
            range`` to 1 where the deviation lies outside 0.5 to 2.
    """
    return _run(program, program.copy(), layers, corrections, None)


def materialize_(module: nn.Module, program: Program) -> None:
    """Give the lazy parts of ``module`` the shapes that their first batch would give them.

    The batch runs through a copy, which shows what reaches each part; then torch's own rule makes
    the parameters, in place, so that an optimizer that holds them already keeps them. No random
    state moves. Parts that the batch does not reach stay lazy.

    Args:
        module: the module; without lazy parts nothing is run.
        program: runs a batch through copies of the module.
    """
    if not any(_is_lazy(part) for part in module.modules()):
        return
    module_copy = program.copy()
    reached: dict[str, tuple[Any, Any]] = {}

    def note(name: str, part: nn.Module, arguments: Any, keywords: Any) -> None:
        reached.setdefault(name, (arguments, keywords))

    with ExitStack() as hooks, preserve_random_states(), torch.no_grad():
        for name, part in module_copy.named_modules():
            if _is_lazy(part):  # before the part's own hook, after which it is no longer lazy
                hook = partial(note, name)
                handle = part.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
                hooks.callback(handle.remove)
        program.loss(module_copy)
        for name, (arguments, keywords) in reached.items():
            lazy: Any = module.get_submodule(name)
            lazy._infer_parameters(lazy, arguments, keywords)


def _is_lazy(part: nn.Module) -> bool:
    return isinstance(part, LazyModuleMixin) and part.has_uninitialized_params()


def _run(
    program: Program,
    module_copy: nn.Module,
    layers: Sequence[str],
    corrections: Mapping[str, str],
    tape: Tape | None,
) -> Readings:
    readings, edges, sizes = Readings(), dict[str, GradientEdge](), dict[str, Tensor]()
    # a compiled part has the name of what it wraps, which comes after it
    parts = {plain_name(n): p for n, p in module_copy.named_modules(remove_duplicate=False)}
    with ExitStack() as hooks, preserve_random_states(), torch.enable_grad():
        for name in layers:
            layer = _LayerHooks(name, corrections.get(name, ""), readings, edges, sizes)
            before = parts[name].register_forward_pre_hook(layer.before, with_kwargs=True)
            hooks.callback(before.remove)
            hooks.callback(parts[name].register_forward_hook(layer.after).remove)
        with tape if tape is not None else nullcontext():
            loss = program.loss(module_copy)
        if loss is not None and loss.requires_grad and edges:
            # hooks read the gradients: those behind an earlier layer are not kept for us
            torch.autograd.grad(loss, first_edges(list(edges.values())), allow_unused=True)
            squares = {n: s.to(loss.device) for n, s in sizes.items()}
            values = torch.stack(list(squares.values())).tolist() if squares else []
            readings.gradient.update(zip(squares, values, strict=True))
    return readings


class _LayerHooks:
    """The two hooks of one layer, which act on its first use."""

    def __init__(
        self,
        name: str,
        correction: str,
        readings: Readings,
        edges: dict[str, GradientEdge],
        sizes: dict[str, Tensor],
    ) -> None:
        self._name, self._correction = name, correction
        self._readings, self._edges, self._sizes = readings, edges, sizes

    @torch.no_grad()
    def before(self, part: nn.Module, inputs: Any, keywords: Any) -> None:
        """Correct the layer's weight."""
        if not self._correction or self._name in self._readings.signal:
            return
        units = _by_unit(part, part.forward(*inputs, **keywords))
        bias = dict(part.named_parameters(recurse=False)).get("bias")
        units = units if bias is None else units - bias.float()
        scale, shift = _scale_and_shift(self._correction, units)
        part.get_parameter("weight").mul_(scale)
        self._readings.scale[self._name] = scale
        if shift is not None and bias is not None:
            bias.copy_(shift)
            self._readings.shift[self._name] = shift

    def after(self, part: nn.Module, inputs: Any, output: Any) -> None:
        """Measure the layer's output, and ask for its gradient."""
        if self._name in self._readings.signal or not isinstance(output, Tensor):
            return
        units = _by_unit(part, output.detach())
        self._readings.signal[self._name] = float(units.var(0, correction=0).mean().sqrt())
        if output.requires_grad:
            self._edges[self._name] = get_gradient_edge(output)
            result: Any = output  # torch gives hooks no types
            result.register_hook(self._read)

    @torch.no_grad()
    def _read(self, gradient: Tensor) -> None:
        self._sizes[self._name] = gradient.float().square().mean().sqrt()


def _scale_and_shift(correction: str, units: Tensor) -> tuple[float, Tensor | None]:
    centered = correction == LSUV_CENTERED
    std = float(units.var(0, correction=0).mean().sqrt() if centered else units.std(correction=0))
    healthy = correction == INPUT_RANGE and _HEALTHY[0] <= std <= _HEALTHY[1]
    scale = 1.0 if healthy or not 1e-20 < std < 1e20 else 1 / std
    return scale, -scale * units.mean(0) if centered else None


def _by_unit(part: nn.Module, output: Tensor) -> Tensor:
    """Return a layer's output as (samples and places, units)."""
    kernel = getattr(part, "kernel_size", None)
    dimension = output.dim() - len(kernel) - 1 if isinstance(kernel, tuple) else -1
    return output.float().movedim(dimension, -1).flatten(0, -2)
