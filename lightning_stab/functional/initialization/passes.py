"""A forward and backward pass through a copy of the module: measured, and rescaled on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_stab.functional.initialization.flow import Flow
from lightning_stab.functional.initialization.tape import Tape
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
        shift: what was added to its bias.
    """

    signal: dict[str, float] = field(default_factory=dict)
    gradient: dict[str, float] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)
    shift: dict[str, Tensor] = field(default_factory=dict)


def trace(program: Program, layers: Sequence[str]) -> tuple[Flow, Readings]:
    """Return the flow of data through a copy of the module, and the readings of its layers."""
    twin = program.copy()
    tape = Tape(twin)
    try:
        readings = _run(program, twin, layers, {}, tape)
    finally:
        tape.close()
    return Flow(tape, twin), readings


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


def _run(
    program: Program,
    twin: nn.Module,
    layers: Sequence[str],
    corrections: Mapping[str, str],
    tape: Tape | None,
) -> Readings:
    readings, edges = Readings(), dict[str, Any]()
    parts = dict(twin.named_modules(remove_duplicate=False))
    with ExitStack() as hooks, preserve_random_states(), torch.enable_grad():
        for name in layers:
            watch = _Watch(name, corrections.get(name, ""), readings, edges)
            part = parts[name]
            hooks.callback(part.register_forward_pre_hook(watch.before).remove)
            hooks.callback(part.register_forward_hook(watch.after).remove)
        with tape if tape is not None else nullcontext():
            loss = program.loss(twin)
        if loss is not None and loss.requires_grad and edges:
            gradients = torch.autograd.grad(loss, list(edges.values()), allow_unused=True)
            for name, gradient in zip(edges, gradients, strict=True):
                if gradient is not None:
                    readings.gradient[name] = float(gradient.float().square().mean().sqrt())
    return readings


class _Watch:
    """The two hooks of one layer, which act on its first use."""

    def __init__(
        self, name: str, correction: str, readings: Readings, edges: dict[str, Any]
    ) -> None:
        self._name, self._correction = name, correction
        self._readings, self._edges = readings, edges

    @torch.no_grad()
    def before(self, part: nn.Module, inputs: Any) -> None:
        if not self._correction or self._name in self._readings.signal:
            return
        output = part.forward(*inputs)
        bias = part._parameters.get("bias")
        units = _by_unit(part, output)
        units = units if bias is None else units - bias.float()
        scale, shift = _correction(self._correction, units)
        part._parameters["weight"].mul_(scale)  # type: ignore[union-attr]
        self._readings.scale[self._name] = scale
        if shift is not None and bias is not None:
            bias.copy_(shift)
            self._readings.shift[self._name] = shift

    def after(self, part: nn.Module, inputs: Any, output: Any) -> None:
        if self._name in self._readings.signal or not isinstance(output, Tensor):
            return
        units = _by_unit(part, output.detach())
        self._readings.signal[self._name] = float(units.var(0, correction=0).mean().sqrt())
        if output.requires_grad:
            self._edges[self._name] = torch.autograd.graph.get_gradient_edge(output)


def _correction(kind: str, units: Tensor) -> tuple[float, Tensor | None]:
    centred = kind == LSUV_CENTERED
    std = float(units.var(0, correction=0).mean().sqrt() if centred else units.std(correction=0))
    healthy = kind == INPUT_RANGE and _HEALTHY[0] <= std <= _HEALTHY[1]
    scale = 1.0 if healthy or not 1e-20 < std < 1e20 else 1 / std
    return scale, -scale * units.mean(0) if centred else None


def _by_unit(part: nn.Module, output: Tensor) -> Tensor:
    """Return a layer's output as (samples and places, units)."""
    convolution = hasattr(part, "kernel_size")
    dimension = output.dim() - len(part.kernel_size) - 1 if convolution else -1  # type: ignore[arg-type]
    return output.float().movedim(dimension, -1).flatten(0, -2)
