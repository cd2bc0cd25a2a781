"""The architectures of what was the report part of the third look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.diagnosis.elsewhere.blocks import (
    Make,
    Places,
    Read,
    Residual,
    Swap,
    embedded,
    perceptron,
    width_of,
)


class Joined(nn.Module):
    """Bodies side by side: what each of them makes of the same input, along the features."""

    def __init__(self, *bodies: nn.Module) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F, ...] of [N, ...]."""
        return torch.cat([body(x) for body in self.bodies], 1)


class Highway(nn.Module):
    """Layers that learn how much of their input to let through (Srivastava et al. 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.made, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, F]."""
        share = self.gate(x).sigmoid()
        return share * self.made(x).relu() + (1 - share) * x


class Highest(nn.Module):
    """The largest value over time, of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C] of [N, C, T]."""
        return x.amax(-1)


def _highways(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = (Highway(32) for _ in range(3))
    return nn.Sequential(nn.Flatten(), nn.Linear(width_of(data), 32), *layers)


def _dense(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    width = width_of(data)
    for _ in range(3):
        layers.append(Joined(nn.Identity(), nn.Sequential(nn.Linear(width, 24), nn.ReLU())))
        width += 24
    return nn.Sequential(*layers)


def _wide_and_deep(data: Any, settings: dict[str, Any]) -> nn.Module:
    width = width_of(data)
    deep = [nn.Linear(width, 48), nn.GELU(), nn.Linear(48, 24), nn.GELU()]
    return nn.Sequential(nn.Flatten(), Joined(nn.Identity(), nn.Sequential(*deep)))


def _three_convolutions(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 8), (8, 16), (16, 24)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if before < 16 else []
    return nn.Sequential(*layers, nn.Flatten())


def _inception(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block(channels: int) -> nn.Module:
        kinds = ((1, 8), (3, 8), (5, 4))
        bodies = (nn.Conv2d(channels, own, size, padding=size // 2) for size, own in kinds)
        return nn.Sequential(Joined(*bodies), nn.BatchNorm2d(20), nn.ReLU())

    return nn.Sequential(
        block(1), nn.MaxPool2d(2), block(20), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )


def _conv_mixer(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:
        deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        return nn.Sequential(Residual(nn.Sequential(deep, nn.GELU())), nn.Conv2d(16, 16, 1))

    first = [nn.Conv2d(1, 16, 2, stride=2), nn.GELU()]
    ends = [nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*first, block(), nn.GELU(), block(), *ends)


def _large_kernel(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(1, 12, 5), nn.LeakyReLU(0.1), nn.Conv2d(12, 24, 3), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())


def _rnn_relu(data: Any, settings: dict[str, Any]) -> nn.Module:
    layer = nn.RNN(12, 24, nonlinearity="relu", batch_first=True)
    nn.init.eye_(layer.weight_hh_l0)  # Le, Jaitly & Hinton 2015
    return nn.Sequential(*embedded(data, settings, 12), Read(layer, "last"))


def _two_grus(data: Any, settings: dict[str, Any]) -> nn.Module:
    layer = nn.GRU(12, 20, num_layers=2, batch_first=True)
    return nn.Sequential(*embedded(data, settings, 12), Read(layer, "mean"))


def _lstm_both_ways(data: Any, settings: dict[str, Any]) -> nn.Module:
    layer = nn.LSTM(10, 14, batch_first=True, bidirectional=True)
    return nn.Sequential(*embedded(data, settings, 10), Read(layer, "mean"))


def _causal(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block(dilation: int) -> nn.Module:
        past = nn.ConstantPad1d((2 * dilation, 0), 0.0)
        return Residual(nn.Sequential(past, nn.Conv1d(16, 16, 3, dilation=dilation), nn.ReLU()))

    first = [*embedded(data, settings, 16), Swap()]
    return nn.Sequential(*first, block(1), block(2), block(4), Swap(), Read(nn.Identity(), "last"))


def _highest_over_time(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 16), Swap()]
    sizes = (nn.Sequential(nn.Conv1d(16, 16, size), nn.ReLU(), Highest()) for size in (2, 3, 4))
    return nn.Sequential(*first, Joined(*sizes))


def _transformer_gelu(data: Any, settings: dict[str, Any]) -> nn.Module:
    blocks = (
        nn.TransformerEncoderLayer(24, 4, 48, 0.0, "gelu", batch_first=True, norm_first=True)
        for _ in range(3)
    )
    first = [*embedded(data, settings, 24), Places(data.x.shape[1], 24)]
    return nn.Sequential(*first, Read(nn.Sequential(*blocks, nn.LayerNorm(24)), "mean"))


def _bag_tanh(data: Any, settings: dict[str, Any]) -> nn.Module:
    top = int(max(data.x.max(), data.val_x.max())) + 1
    return nn.Sequential(nn.EmbeddingBag(top, 32, mode="sum"), nn.Linear(32, 32), nn.Tanh())


SEEN_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "relu_5": ("seen_3", ("table",), perceptron(nn.ReLU, 5, 32)),
    "softsign_2": ("seen_3", ("table", "image"), perceptron(nn.Softsign, 2, 40)),
    "prelu_3": ("seen_3", ("table",), perceptron(nn.PReLU, 3, 32)),
    "rms_2": ("seen_3", ("table", "image"), perceptron(nn.SiLU, 2, 48, nn.RMSNorm)),
    "batchnorm_tanh": ("seen_3", ("table",), perceptron(nn.Tanh, 2, 40, nn.BatchNorm1d)),
    "highways": ("seen_3", ("table",), _highways),
    "dense": ("seen_3", ("table", "image"), _dense),
    "wide_and_deep": ("seen_3", ("table",), _wide_and_deep),
    "cnn_max_3": ("seen_3", ("image",), _three_convolutions),
    "cnn_batchnorm_inception": ("seen_3", ("image",), _inception),
    "conv_mixer": ("seen_3", ("image",), _conv_mixer),
    "cnn_large_kernel": ("seen_3", ("image",), _large_kernel),
    "rnn_relu": ("seen_3", ("series", "tokens"), _rnn_relu),
    "gru_twice": ("seen_3", ("series", "tokens"), _two_grus),
    "lstm_both_ways": ("seen_3", ("series", "tokens"), _lstm_both_ways),
    "causal": ("seen_3", ("series", "tokens"), _causal),
    "highest_over_time": ("seen_3", ("series", "tokens"), _highest_over_time),
    "transformer_gelu": ("seen_3", ("series", "tokens"), _transformer_gelu),
    "bag_tanh": ("seen_3", ("tokens",), _bag_tanh),
}
