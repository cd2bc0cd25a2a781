"""Hooks that exist for one batch: the order of layers, and the gradient of their outputs.

The weights' own gradients are blind to a net that explodes by its initialisation, because the
growth of the activations and the growth of the backward signal cancel in their product. The
gradient of the pre-activations, the outputs of linear and convolution layers, is not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_stab.functional.layer_kinds import WEIGHT_LAYERS
from lightning_stab.functional.names import plain_name


class LayerProbe:
    """Watch the linear and convolution layers of a module during one batch.

    Install it before the forward pass and remove it after the backward pass. It changes no result.

    Attributes:
        order: names of the layers in the order of execution, each once.
    """

    def __init__(self) -> None:
        self.order: list[str] = []
        self._squares: dict[str, Tensor] = {}
        self._sizes: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []

    def install(self, module: nn.Module, *, gradients: bool = True) -> None:
        """Put hooks on every linear and convolution layer; with ``gradients``, on their outputs.

        Args:
            module: the module that will run; one compiled as a whole shows no layers.
            gradients: whether to measure the gradients of the layers' outputs.
        """
        for name, layer in module.named_modules():
            if isinstance(layer, WEIGHT_LAYERS):
                hook = _OutputHook(self, plain_name(name), gradients)
                self._handles.append(layer.register_forward_hook(hook))

    def remove(self) -> None:
        """Take every hook away; the measurements stay."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def gradient_rms(self) -> dict[str, Tensor]:
        """Return the RMS of the gradient of each layer's output, in execution order."""
        return {
            name: (self._squares[name] / self._sizes[name]).sqrt()
            for name in self.order
            if name in self._squares
        }

    def seen(self, name: str, output: Any, gradients: bool) -> None:
        """Note that a layer ran, and watch the gradient of its output."""
        if name not in self.order:
            self.order.append(name)
        if gradients and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: self._add(name, gradient))  # type: ignore[no-untyped-call]

    def _add(self, name: str, gradient: Tensor) -> None:
        with torch.no_grad():
            norm = torch.linalg.vector_norm(
                gradient, dtype=None if gradient.dtype is torch.float64 else torch.float32
            )
            self._squares[name] = self._squares.get(name, torch.zeros_like(norm)) + norm.square()
            self._sizes[name] = self._sizes.get(name, 0) + gradient.numel()


class _OutputHook:
    """A forward hook as an object, so that modules with it can be copied and pickled."""

    def __init__(self, probe: LayerProbe, name: str, gradients: bool) -> None:
        self.probe = probe
        self.name = name
        self.gradients = gradients

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if (module.training or torch.is_grad_enabled()) and not is_transformed():
            self.probe.seen(self.name, output, self.gradients)


def is_transformed() -> bool:
    """Say whether ``torch.func`` runs this code, with tensors that must not leave it."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def is_compiled(module: nn.Module) -> bool:
    """Say whether any part was compiled, so that hooks set now would not run or would recompile."""
    return any(
        getattr(m, "_compiled_call_impl", None) is not None
        or getattr(m, "_compiler_ctx", None) is not None  # Lightning's mark on a compiled module
        or hasattr(m, "_orig_mod")
        for m in module.modules()
    )


def first_and_last_hidden(profile: dict[str, float]) -> tuple[float, float]:
    """Return the values of the first and the last hidden layer; NaN with fewer than two.

    The last layer in execution order is the output layer, and not hidden.
    """
    hidden = list(profile.values())[:-1]
    return (hidden[0], hidden[-1]) if len(hidden) > 1 else (math.nan, math.nan)
