"""Eleven small tasks: real tables and images, Friedman's regressions, and sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn import datasets
from torch import Tensor, nn


@dataclass(frozen=True)
class Split:
    """Inputs and targets of the three parts, scaled by the training part."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """One learning task.

    Attributes:
        name: as in the table.
        metric: "accuracy" or "R2", the larger the better.
        load: returns all inputs and targets for a seed; real data ignore the seed.
        shares: how many samples the training and the validation get; the rest is the test.
        width: of the hidden layers; 0 asks for the recurrent net.
        rate: Adam's first learning rate.
    """

    name: str
    metric: str
    load: Callable[[int], tuple[Tensor, Tensor]]
    shares: tuple[int, int]
    width: int = 64
    rate: float = 2e-3

    def split(self, seed: int) -> Split:
        """Shuffle with the seed, split, and scale by the training part."""
        inputs, targets = self.load(seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(inputs), generator=generator)
        inputs, targets = inputs[order], targets[order]
        train, val = self.shares
        mean, std = inputs[:train].mean(0), inputs[:train].std(0)
        inputs = (inputs - mean) / torch.where(std > 0.1 * std.mean(), std, std.mean())
        if self.metric == "R2":
            targets = (targets - targets[:train].mean()) / targets[:train].std()
        edges = (slice(0, train), slice(train, train + val), slice(train + val, None))
        return Split(*((inputs[part], targets[part]) for part in edges))

    def net(self, inputs: int, outputs: int) -> nn.Module:
        """Return a fresh net from the global random state."""
        if self.width == 0:
            return Recurrent(outputs)
        return nn.Sequential(
            nn.Linear(inputs, self.width),
            nn.BatchNorm1d(self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.width),
            nn.ReLU(),
            nn.Linear(self.width, outputs),
        )


class Recurrent(nn.Module):
    """A GRU over a sequence of numbers, and a linear map from its last state."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.cells = nn.GRU(1, 24, batch_first=True)
        self.head = nn.Linear(24, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, length) to (batch, outputs)."""
        states, _ = self.cells(inputs.unsqueeze(-1))
        return self.head(states[:, -1])


def _real(loader: Callable[..., object], regression: bool = False) -> Callable[[int], tuple]:
    def load(seed: int) -> tuple[Tensor, Tensor]:
        inputs, targets = loader(return_X_y=True)
        kind = torch.float32 if regression else torch.int64
        return torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets, dtype=kind)

    return load


def _noisy_digits(seed: int) -> tuple[Tensor, Tensor]:
    """Digits of which one label in five is wrong, in all three parts alike."""
    inputs, targets = _real(datasets.load_digits)(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    wrong = torch.rand(len(targets), generator=generator) < 0.2
    other = torch.randint(0, 10, targets.shape, generator=generator)
    return inputs, torch.where(wrong, other, targets)


def _friedman(make: Callable[..., object], noise: float) -> Callable[[int], tuple]:
    def load(seed: int) -> tuple[Tensor, Tensor]:
        inputs, targets = make(n_samples=900, noise=noise, random_state=seed)
        return torch.tensor(inputs).float(), torch.tensor(targets).float()

    return load


def _waves(seed: int) -> tuple[Tensor, Tensor]:
    """Which of two frequencies a noisy wave of random phase has."""
    generator = torch.Generator().manual_seed(seed)
    fast = torch.randint(0, 2, (900,), generator=generator)
    phase = 2 * math.pi * torch.rand(900, 1, generator=generator)
    time = torch.arange(24.0)
    waves = torch.sin(time * (0.5 + 0.15 * fast[:, None]) + phase)
    return waves + 0.8 * torch.randn(900, 24, generator=generator), fast


TASKS = (
    Task("digits", "accuracy", _real(datasets.load_digits), (400, 300)),
    Task("digits, 20 % wrong labels", "accuracy", _noisy_digits, (600, 400)),
    Task("breast cancer", "accuracy", _real(datasets.load_breast_cancer), (200, 150), width=32),
    Task("wine", "accuracy", _real(datasets.load_wine), (60, 50), width=16),
    Task("iris", "accuracy", _real(datasets.load_iris), (60, 40), width=16),
    Task("diabetes", "R2", _real(datasets.load_diabetes, regression=True), (200, 100), width=32),
    Task("friedman 1", "R2", _friedman(datasets.make_friedman1, 1.0), (200, 200)),
    Task("friedman 2", "R2", _friedman(datasets.make_friedman2, 100.0), (200, 200)),
    Task("friedman 3", "R2", _friedman(datasets.make_friedman3, 0.1), (200, 200)),
    Task("waves (sequence)", "accuracy", _waves, (300, 200), width=0, rate=5e-3),
)
