"""What the rules of SageMaker Debugger look at: weights, gradients and inputs of activations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

TANH = (-9.4999, 9.4999)
SIGMOID = (-23.0, 16.99999)
ACTIVE_SHARE = 0.01
SAMPLED_ENTRIES = 4096


@dataclass(frozen=True)
class GradientFacts:
    """The mean absolute value of each gradient, and the range of each weight's gradient."""

    means: list[float]
    ranges: list[float]


@torch.no_grad()
def measure_gradients(optimizer: Any, *, with_range: bool) -> GradientFacts:
    """Measure the gradients of an optimizer's parameters; the range is from 5 % to 95 %."""
    means, ranges = [], []
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        if parameter.grad is None or parameter.numel() == 0:
            continue
        gradient = parameter.grad
        if gradient.is_sparse:
            gradient = gradient.coalesce().values()
        means.append(torch.linalg.vector_norm(gradient, 1, dtype=torch.float32) / parameter.numel())
        if with_range and parameter.dim() > 1 and gradient.numel():
            entries = gradient.float().flatten()
            entries = entries[:: max(1, len(entries) // SAMPLED_ENTRIES)]
            low, high = entries.quantile(torch.tensor([0.05, 0.95], device=entries.device))
            ranges.append(high - low)
    return GradientFacts(_numbers(means), _numbers(ranges))


@dataclass(frozen=True)
class WeightFacts:
    """A figure for each weight; the last two compare with the saved step before."""

    finite: list[bool]
    all_zero: list[bool]
    update_ratio: list[float] = field(default_factory=list)
    unchanged: list[int] = field(default_factory=list)


class Weights:
    """Compares weights with those of the last measurement."""

    def __init__(self) -> None:
        self._before: list[Tensor] = []
        self._unchanged: list[int] = []

    @torch.no_grad()
    def measure(self, module: nn.Module) -> WeightFacts:
        """Measure all parameters with "weight" in their name."""
        weights = [
            parameter.detach().float()
            for name, parameter in module.named_parameters()
            if "weight" in name and parameter.is_floating_point() and parameter.numel()
        ]
        sums = _numbers([torch.linalg.vector_norm(weight, 1) for weight in weights])
        before, self._before = self._before, [weight.clone() for weight in weights]
        finite = [value < float("inf") for value in sums]
        all_zero = [value == 0 for value in sums]
        if [weight.shape for weight in weights] != [weight.shape for weight in before]:
            self._unchanged = [0] * len(weights)
            return WeightFacts(finite, all_zero)
        pairs = list(zip(weights, before, strict=True))
        close = _numbers([((w - b).abs() <= 1e-8 + 1e-5 * b.abs()).all() for w, b in pairs])
        ratios = [(w - b).abs().mean() / (b.abs().mean() + 1e-9) for w, b in pairs]
        counts = zip(self._unchanged, close, strict=True)
        self._unchanged = [count + 1 if same else 0 for count, same in counts]
        return WeightFacts(finite, all_zero, _numbers(ratios), self._unchanged)


class Activations:
    """Watches the inputs of ReLU, tanh and sigmoid modules during one batch.

    An input tells what its output will be, also where the module works in place.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._dead: list[Tensor] = []
        self._saturated: list[Tensor] = []
        self._variances: list[Tensor] = []

    def watch(self, module: nn.Module) -> None:
        """Begin anew, with a hook on each activation module."""
        self.stop()
        self._dead, self._saturated, self._variances = [], [], []
        for part in module.modules():
            if isinstance(part, (nn.ReLU, nn.Tanh, nn.Sigmoid)):
                self._handles.append(part.register_forward_pre_hook(self._see))

    def stop(self) -> None:
        """Take the hooks away; what was seen stays readable."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def dead(self) -> list[float]:
        """Return the share of dead units of each ReLU."""
        return _numbers(self._dead)

    def saturated(self) -> list[float]:
        """Return the share of saturated units of each tanh and sigmoid."""
        return _numbers(self._saturated)

    def variances(self) -> list[float]:
        """Return the variance of the input of each ReLU."""
        return _numbers(self._variances)

    @torch.no_grad()
    def _see(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        value = inputs[0] if inputs else None
        if not isinstance(value, Tensor) or value.dim() < 1 or value.numel() == 0:
            return
        value = value.detach().float()
        units = value.movedim(1, -1) if value.dim() > 3 else value
        units = units.reshape(-1, units.shape[-1])
        if isinstance(module, nn.ReLU):
            self._dead.append(_idle_share(units > 0))
            self._variances.append(value.var(correction=0))
        else:
            low, high = TANH if isinstance(module, nn.Tanh) else SIGMOID
            self._saturated.append(_idle_share((units > low) & (units < high)))


def stale(losses: list[float], delta: float = 0.01) -> int:
    """Return how many values ago the losses last fell by more than `delta` below their best."""
    best, since = float("inf"), 0
    for loss in losses:
        if loss < best - delta:
            best, since = loss, 0
        else:
            since += 1
    return since


def _idle_share(active: Tensor) -> Tensor:
    """Return the share of units (columns) that are active in under 1 % of the rows."""
    return (active.float().mean(0) < ACTIVE_SHARE).float().mean()


def _numbers(tensors: list[Tensor]) -> list[float]:
    """Bring scalars over in one transfer."""
    return torch.stack([tensor.float() for tensor in tensors]).tolist() if tensors else []
