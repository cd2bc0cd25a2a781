"""Hooks that exist for one batch: the order of layers, and the gradient of their outputs.

The weights' own gradients are blind to a net that explodes by its initialisation, because the
growth of the activations and the growth of the backward signal cancel in their product. The
gradient of the pre-activations, the outputs of linear and convolution layers, is not.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from lightning_stab.callbacks._hooks.compiled import Hookable, hookable
from lightning_stab.callbacks._hooks.hooks import ModuleHooks, is_transformed, without_modes
from lightning_stab.functional.layer_kinds import WEIGHT_LAYERS

MANY_LAYERS = 20  # hidden ones


class LayerProbe:
    """Watch the linear and convolution layers of a module during one batch.

    Install it before the forward pass and remove it after the backward pass. It changes no result.

    Attributes:
        order: names of the layers in the order of execution, each once.
        compiled: names of the compiled parts, whose layers are passed over; ``""`` is the module.
    """

    def __init__(self) -> None:
        self.order: list[str] = []
        self.compiled: list[str] = []
        self._norms: dict[str, list[Tensor]] = {}
        self._sizes: dict[str, int] = {}
        self._hooks = ModuleHooks()

    def install(self, module: nn.Module | Hookable, *, gradients: bool = True) -> None:
        """Put hooks on every linear and convolution layer; with ``gradients``, on their outputs.

        Args:
            module: the module that will run.
            gradients: whether to measure the gradients of the layers' outputs.
        """
        parts = hookable(module)
        self.compiled = parts.compiled
        for name, layer in parts.modules:
            if isinstance(layer, WEIGHT_LAYERS):
                self._hooks.after(layer, partial(self.add_output, name, gradients))

    def remove(self) -> None:
        """Take every hook away; the measurements stay."""
        self._hooks.remove()

    def gradient_rms(self) -> dict[str, Tensor]:
        """Return the RMS of the gradient of each layer's output, in execution order."""
        names = [name for name in self.order if name in self._norms]
        if not names:
            return {}
        norms = [
            torch.linalg.vector_norm(torch.stack(each)) if len(each) > 1 else each[0]
            for each in (self._norms[name] for name in names)
        ]
        sizes = [math.sqrt(self._sizes[name]) for name in names]
        return dict(zip(names, torch._foreach_div(norms, sizes), strict=True))

    @without_modes
    def add_output(
        self, name: str, gradients: bool, module: nn.Module, args: Any, output: Any
    ) -> None:
        """Note that a layer has run; with ``gradients``, read that of its output once it is known.

        For the hooks, and for those of another who has one on the same layers.
        """
        if not (module.training or torch.is_grad_enabled()) or is_transformed():
            return
        if name not in self.order:
            self.order.append(name)
        if gradients and isinstance(output, Tensor) and output.requires_grad:
            self._hooks.on_gradient(output, partial(self._add_gradient, name))

    @without_modes
    def _add_gradient(self, name: str, gradient: Tensor) -> None:
        with torch.no_grad():
            norm = torch.linalg.vector_norm(
                gradient, dtype=None if gradient.dtype is torch.float64 else torch.float32
            )
            self._norms.setdefault(name, []).append(norm)
            self._sizes[name] = self._sizes.get(name, 0) + gradient.numel()


def first_and_last_hidden(profile: dict[str, float]) -> tuple[float, float]:
    """Return the values of the first and the last hidden layer; NaN with fewer than two.

    The last layer in execution order is the output layer, and not hidden. Of a net of many layers
    whose early ones do not rise one after the other, as branches do not, the first counts as the
    median of the first quarter: one of them alone may be a gate that nearly stands still.
    """
    hidden = list(profile.values())[:-1]
    if len(hidden) < 2:
        return math.nan, math.nan
    early = hidden[: len(hidden) // 4]
    falls = any(after < before / 2 for before, after in pairwise(early))
    is_branched = len(hidden) >= MANY_LAYERS and falls
    return median(early) if is_branched else hidden[0], hidden[-1]
