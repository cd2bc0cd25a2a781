"""Buffers as they were before a batch, for a step that shall leave no trace.

A forward pass over a bad batch ruins running statistics, which no optimizer protects. Only buffers
that change are copied again: a version counter tells for all but batch normalisation's, whose
kernels write past it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class BufferKeeper:
    """Keep a copy of a module's buffers, refreshed cheaply.

    Args:
        module: the module whose buffers are kept; those that it gains later are not.
    """

    def __init__(self, module: nn.Module) -> None:
        self._places: list[tuple[nn.Module, str]] = []
        self._restless: set[int] = set()
        for owner in module.modules():
            for name, buffer in owner._buffers.items():
                if buffer is not None:
                    if isinstance(owner, _NormBase):
                        self._restless.add(len(self._places))
                    self._places.append((owner, name))
        self._kept: dict[int, tuple[Tensor, int, Tensor]] = {}

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
