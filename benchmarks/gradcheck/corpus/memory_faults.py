"""Faults of memory: caches that go stale, scratch space used twice, tensors written in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.gradcheck.corpus.case import Built, Case


class _StaleWeight(torch.autograd.Function):
    """Keeps the weight of its first call for all later backward passes."""

    kept: ClassVar[list[Tensor]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        if not _StaleWeight.kept:
            _StaleWeight.kept.append(weight.detach().double().clone())
        return x @ weight

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g @ _StaleWeight.kept[0].T.to(g.dtype), x.T @ g


class _SharedScratch(torch.autograd.Function):
    """Keeps its input in one buffer that the next call overwrites."""

    scratch: ClassVar[dict[str, Tensor]] = {}

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        _SharedScratch.scratch["x"] = x.detach().clone()
        ctx.save_for_backward(weight)
        return (x @ weight).tanh()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        x = _SharedScratch.scratch["x"]
        inner = g * (1 - (x @ weight).tanh() ** 2)
        return inner @ weight.T, x.T @ inner


class _WrittenAfterwards(torch.autograd.Function):
    """Keeps an alias of its input, past the check that autograd makes of saved tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.x = x.data
        ctx.save_for_backward(weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return g @ weight.T, ctx.x.T @ g


class _Right(torch.autograd.Function):
    """The right one: x W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return g @ weight.T, x.T @ g


class _GradientWrittenInPlace(_Right):
    """Writes into the gradient that another branch still needs."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        to_weight = x.T @ g
        g.mul_(2)
        return g @ weight.T, to_weight


class _RightTanh(torch.autograd.Function):
    """The right one: tanh(x W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        y = (x @ weight).tanh()
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, y = ctx.saved_tensors
        inner = g * (1 - y**2)
        return inner @ weight.T, x.T @ inner


class _Net(nn.Module):
    def __init__(
        self, function: Any, combine: Callable[[Any, Tensor, nn.ParameterList], Tensor]
    ) -> None:
        super().__init__()
        self.before = nn.Linear(6, 6)
        self.weights = nn.ParameterList(nn.Parameter(0.4 * torch.randn(6, 6)) for _ in range(2))
        self._function = function
        self._combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self._combine(self._function, self.before(x), self.weights)


def _one_after_another(function: Any, x: Tensor, weights: nn.ParameterList) -> Tensor:
    return function.apply(function.apply(x, weights[0]), weights[1])


def _written_between(function: Any, x: Tensor, weights: nn.ParameterList) -> Tensor:
    y = function.apply(x, weights[0])
    x = x + 0.0 if function is _Right else x
    x.data.mul_(1.5)
    return function.apply(y, weights[1])


def _beside(function: Any, x: Tensor, weights: nn.ParameterList) -> Tensor:
    joint = function.apply(x, weights[0]) + x @ weights[1]
    return joint * 1.0


def _loss(module: nn.Module, batch: Tensor) -> Tensor:
    return (module(batch) - 0.3).square().mean()


def _built(function: Any, combine: Any, *, warm: bool) -> Callable[[int], Built]:
    def build(seed: int) -> Built:
        torch.manual_seed(seed)
        module, batch = _Net(function, combine), torch.randn(9, 6)
        _StaleWeight.kept.clear()
        if warm:
            _loss(module, batch)
        return module, batch, _loss

    return build


def memory_cases() -> list[Case]:
    """Return the wrong cases of this file."""
    table = [
        ("stale weight", _StaleWeight, _Right, _one_after_another, True),
        ("scratch space used twice", _SharedScratch, _RightTanh, _one_after_another, False),
        ("input written afterwards", _WrittenAfterwards, _Right, _written_between, False),
        ("gradient written in place", _GradientWrittenInPlace, _Right, _beside, False),
    ]
    return [
        Case(
            f"matrix product: {name}",
            "memory",
            _built(wrong, combine, warm=warm),
            wrong.__name__,
            _built(right, combine, warm=False),
        )
        for name, wrong, right, combine, warm in table
    ]
