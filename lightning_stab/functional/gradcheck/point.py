"""The point at which gradients are checked: near the parameters, but not on a special spot."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.coordinates import flat_view

MOVE = 0.05
"""The move, relative to each tensor's root mean square, and absolute for an all-zero tensor."""


@torch.no_grad()
def move_(parameters: Iterable[Tensor], generator: torch.Generator, distance: float = MOVE) -> None:
    """Move each parameter in place by about ``distance`` of its root mean square.

    At the initial point a zero-initialised head or gate hides every fault behind it, and a
    regular start may sit exactly on a kink.
    """
    for parameter in parameters:
        values = flat_view(parameter)
        if values.numel() == 0:
            continue
        size = float(values.square().mean().sqrt()) or 1.0
        noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        values.add_(noise.to(values.device), alpha=distance * size)
