"""Torch's own layers, alone and together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from benchmarks.gradcheck.corpus.case import Built, Case

Make = Callable[[], nn.Module]


class _First(nn.Module):
    """Takes the first of several results, such as a recurrent layer's outputs."""

    def __init__(self, inner: nn.Module, repeat: int = 1) -> None:
        super().__init__()
        self.inner = inner
        self.repeat = repeat

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(*[x] * self.repeat)[0]


def _loss(module: nn.Module, batch: Tensor) -> Tensor:
    result = module(batch)
    flat = result.reshape(-1)
    weights = torch.linspace(-1, 2, len(flat), dtype=flat.dtype).cos()
    return (flat * weights).mean() + flat.square().mean()


def _build(make: Make, shape: tuple[int, ...], seed: int) -> Built:
    torch.manual_seed(seed)
    return make(), torch.randn(shape), _loss


def _net(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


ROWS, SIGNAL, IMAGE, SEQUENCE = (7, 6), (4, 3, 10), (4, 3, 7, 7), (3, 5, 8)
MODULES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "deep ReLU": (
        lambda: _net(*[m for _ in range(6) for m in (nn.Linear(6, 6), nn.ReLU())]), ROWS
    ),
    "deep tanh": (
        lambda: _net(*[m for _ in range(6) for m in (nn.Linear(6, 6), nn.Tanh())]), ROWS
    ),
    "BatchNorm1d": (lambda: _net(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()), ROWS),
    "BatchNorm2d": (lambda: _net(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), IMAGE),
    "LayerNorm": (lambda: _net(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU()), ROWS),
    "GroupNorm": (lambda: _net(nn.Conv1d(3, 4, 3), nn.GroupNorm(2, 4)), SIGNAL),
    "InstanceNorm": (lambda: _net(nn.Conv1d(3, 4, 3), nn.InstanceNorm1d(4, affine=True)), SIGNAL),
    "RMSNorm": (lambda: _net(nn.Linear(6, 8), nn.RMSNorm(8)), ROWS),
    "LocalResponseNorm": (lambda: _net(nn.Conv1d(3, 4, 3), nn.LocalResponseNorm(2)), SIGNAL),
    "Conv1d strided": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), SIGNAL),
    "Conv2d grouped": (lambda: nn.Conv2d(3, 6, 3, groups=3), IMAGE),
    "Conv2d dilated": (lambda: nn.Conv2d(3, 2, 3, dilation=2, padding_mode="circular"), IMAGE),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 2, 3, stride=2), IMAGE),
    "convolutional net": (
        lambda: _net(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        ),
        IMAGE,
    ),
    "RNN": (lambda: _First(nn.RNN(8, 4, batch_first=True)), SEQUENCE),
    "RNN with ReLU": (lambda: _First(nn.RNN(8, 4, nonlinearity="relu")), SEQUENCE),
    "LSTM": (lambda: _First(nn.LSTM(8, 4, num_layers=2, dropout=0.2)), SEQUENCE),
    "LSTM with projection": (lambda: _First(nn.LSTM(8, 4, proj_size=2)), SEQUENCE),
    "GRU both ways": (lambda: _First(nn.GRU(8, 4, bidirectional=True)), SEQUENCE),
    "LSTM cell": (lambda: _First(nn.LSTMCell(6, 4)), ROWS),
    "GRU cell": (lambda: nn.GRUCell(6, 4), ROWS),
    "multi-head attention": (
        lambda: _First(nn.MultiheadAttention(8, 2, batch_first=True), 3), SEQUENCE
    ),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), SEQUENCE
    ),
    "encoder layer, norm first": (
        lambda: nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ),
        SEQUENCE,
    ),
    "dropout": (lambda: _net(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2)), ROWS),
    "alpha dropout": (lambda: _net(nn.Linear(6, 8), nn.SELU(), nn.AlphaDropout(0.2)), ROWS),
    "channel dropout": (lambda: _net(nn.Conv1d(3, 8, 3), nn.Dropout1d(0.5)), SIGNAL),
    "random ReLU": (lambda: _net(nn.Linear(6, 8), nn.RReLU()), ROWS),
    "PReLU": (lambda: _net(nn.Linear(6, 8), nn.PReLU(8)), ROWS),
    "Bilinear": (lambda: _First(_Pair()), ROWS),
    "weight norm": (lambda: weight_norm_of(nn.Linear(6, 4)), ROWS),
    "weight norm, parametrised": (lambda: parametrizations.weight_norm(nn.Linear(6, 4)), ROWS),
    "spectral norm, parametrised": (
        lambda: parametrizations.spectral_norm(nn.Linear(6, 4)), ROWS
    ),
    "spectral norm by hook": (lambda: nn.utils.spectral_norm(nn.Linear(6, 4)), ROWS),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 6)), ROWS),
}  # fmt: skip


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bilinear = nn.Bilinear(6, 6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.bilinear(x, x.flip(0)),)


def weight_norm_of(layer: nn.Module) -> nn.Module:
    """Return the layer with the old, hook-based weight normalisation."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return weight_norm(layer)


def module_cases() -> list[Case]:
    """Return one right case for each layer."""
    return [
        Case(f"layer: {name}", "layer", partial(_build, make, shape))
        for name, (make, shape) in MODULES.items()
    ]
