"""Faults that the initial point hides, and faults that a large tensor hides."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gradcheck.corpus.case import Built, Case
from benchmarks.gradcheck.corpus.custom import custom, mutated
from benchmarks.gradcheck.corpus.dense import LINEAR, TANH

_Tanh = custom("Tanh", *TANH)
_Linear = custom("Linear", *LINEAR)


class _Gated(nn.Module):
    """A branch behind a gate that starts at zero."""

    def __init__(self, function: Any, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(width))
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self._function.apply(self.inner(x))


class _ZeroHead(nn.Module):
    """A head whose weight starts at zero."""

    def __init__(self, function: Any, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.head = nn.Linear(width, 2)
        nn.init.zeros_(self.head.weight)
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self._function.apply(self.inner(x)))


class _Large(nn.Module):
    """A matrix of 786,432 entries."""

    def __init__(self, function: Any, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(768, 1024) / 32)
        self.bias = nn.Parameter(torch.zeros(768))
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function.apply(x, self.weight, self.bias).tanh()


def _loss(module: nn.Module, batch: Tensor) -> Tensor:
    return (module(batch) - 0.1).square().mean()


def _build(kind: Any, function: Any, width: int, seed: int) -> Built:
    torch.manual_seed(seed)
    return kind(function, width), torch.randn(8, width), _loss


def _case(name: str, operation: str, kind: Any, wrong: Any, right: Any, width: int) -> Case:
    return Case(
        name,
        operation,
        partial(_build, kind, wrong, width),
        wrong.__name__,
        partial(_build, kind, right, width),
    )


def _flipped(g: Tensor) -> Tensor:
    return -g


def gate_cases() -> list[Case]:
    """Return faults behind a gate and behind a head, both zero at the start."""
    wrong = mutated(_Tanh, "WrongTanh", 0, _flipped)
    return [
        _case("fault behind a zero gate", "gate", _Gated, wrong, _Tanh, 6),
        _case("fault behind a zero head", "gate", _ZeroHead, wrong, _Tanh, 6),
    ]


def one_entry_of_many(index: int) -> Case:
    """Return a matrix of 786,432 entries with the gradient of one of them zeroed."""

    def zeroed(g: Tensor) -> Tensor:
        changed = g.clone().reshape(-1)
        changed[index] = 0
        return changed.reshape(g.shape)

    change: Callable[[Tensor], Tensor] = zeroed
    wrong = mutated(_Linear, "WrongLinear", 1, change)
    name = f"entry {index} of 786,432 zeroed"
    return _case(name, "large matrix", _Large, wrong, _Linear, 1024)
