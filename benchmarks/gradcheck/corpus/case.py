"""One case of the corpus: a small module, a batch, a loss, and the truth about its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LossFunction = Callable[[nn.Module, Any], Tensor]
_POINTS = range(5)
Built = tuple[nn.Module, Any, LossFunction]


@dataclass(frozen=True)
class Case:
    """A module whose backward pass is known to be right or wrong.

    Args:
        name: what is done, and what is wrong about it.
        operation: the operation that it is about.
        build: makes module, batch and loss from a seed.
        function: the ``autograd.Function`` that is wrong, None for a right module.
        twin: makes the same module with the right Function, to tell which parameters are wrong.
        low_precision: whether the backward computes in float32, which is neither right nor wrong.
    """

    name: str
    operation: str
    build: Callable[[int], Built]
    function: str | None = None
    twin: Callable[[int], Built] | None = None
    low_precision: bool = False

    @property
    def wrong(self) -> bool:
        """Tell whether some gradient is wrong."""
        return self.function is not None and not self.low_precision

    def wrong_parameters(self, seed: int = 0) -> set[str]:
        """Return the parameters whose gradient differs from the right twin's, in double.

        At any of a few points near the initial one: some faults spare a parameter at some points.
        """
        if self.twin is None:
            return set()
        wrong: set[str] = set()
        for point in _POINTS:
            found = _gradients(self.build(seed), point)
            right = _gradients(self.twin(seed), point)
            wrong |= {name for name in right if _differ(found[name], right[name])}
        return wrong


def _gradients(built: Built, point: int) -> dict[str, Tensor]:
    module, batch, loss_function = built
    module = module.double()
    generator = torch.Generator().manual_seed(point)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.05 * noise)
    batch = batch.double() if batch.is_floating_point() else batch
    torch.manual_seed(0)
    loss_function(module, batch).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in module.named_parameters()
    }


def _differ(found: Tensor, right: Tensor) -> bool:
    return float((found - right).norm()) > 1e-9 * float(right.norm()) + 1e-13
