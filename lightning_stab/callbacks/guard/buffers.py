"""Buffers as they were before a batch, for a step that shall leave no trace.

A forward pass over a bad batch ruins running statistics, which no optimizer protects. Only buffers
that change are copied again: a version counter tells for all but batch normalisation's, whose
kernels write past it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_stab.functional.names import plain_name
from lightning_stab.functional.norms import first_nonfinite, tensor_norms, total_norm


class BufferKeeper:
    """Watch a module's running statistics, and keep a copy of its buffers, refreshed cheaply.

    Args:
        module: the module whose buffers are kept; those that it gains later are not.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._places: list[tuple[nn.Module, str]] = []
        self._restless: list[int] = []
        for owner in module.modules():
            for name, buffer in owner._buffers.items():
                if buffer is not None:
                    if isinstance(owner, _NormBase):
                        self._restless.append(len(self._places))
                    self._places.append((owner, name))
        self._kept: dict[int, tuple[Tensor, int, Tensor]] = {}

    @torch.no_grad()
    def running_norm(self) -> Tensor | None:
        """Return the norm of all running statistics, on the device; None where there are none.

        A batch can ruin them although its loss and gradient are finite, because normalisation
        divides its scale away.
        """
        running = self._running()
        return total_norm(tensor_norms(list(running.values()))) if running else None

    def first_nonfinite(self) -> str:
        """Return the name of the first running statistic that is not finite, or nothing."""
        running = self._running()
        index = first_nonfinite(list(running.values()))
        if index is None:
            return ""
        owner, name = self._places[list(running)[index]]
        module = next(n for n, m in self._module.named_modules() if m is owner)
        return f"{plain_name(module)}.{name}"

    def _running(self) -> dict[int, Tensor]:
        places = {place: self._places[place] for place in self._restless}
        buffers = {place: owner._buffers.get(name) for place, (owner, name) in places.items()}
        return {p: b for p, b in buffers.items() if b is not None and b.is_floating_point()}

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the buffers as they are now."""
        for place, (owner, name) in enumerate(self._places):
            buffer = owner._buffers.get(name)
            if buffer is None:
                continue
            old, version, copy = self._kept.get(place, (None, -1, None))
            if old is not buffer or copy is None or copy.shape != buffer.shape:
                self._kept[place] = (buffer, buffer._version, buffer.detach().clone())
            elif place in self._restless or buffer._version != version:
                copy.copy_(buffer)
                self._kept[place] = (buffer, buffer._version, copy)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the remembered values back, in place where the buffer is still the same object."""
        for place, (buffer, _, copy) in self._kept.items():
            owner, name = self._places[place]
            buffer.copy_(copy)
            owner._buffers[name] = buffer
            self._kept[place] = (buffer, buffer._version, copy)
