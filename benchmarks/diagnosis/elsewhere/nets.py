"""Some 265 small architectures, by the shape of their inputs; parts are made to be broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.diagnosis.elsewhere.blocks import (
    Make,
    Patches,
    Places,
    Read,
    Residual,
    Swap,
    embedded,
    perceptron,
    width_of,
)
from benchmarks.diagnosis.elsewhere.report_nets import REPORT_NETS
from benchmarks.diagnosis.elsewhere.seen_4_nets import SEEN_4_NETS
from benchmarks.diagnosis.elsewhere.seen_5_nets import SEEN_5_NETS
from benchmarks.diagnosis.elsewhere.seen_6_nets import SEEN_6_NETS
from benchmarks.diagnosis.elsewhere.seen_7_nets import SEEN_7_NETS
from benchmarks.diagnosis.elsewhere.seen_8_nets import SEEN_8_NETS
from benchmarks.diagnosis.elsewhere.seen_9_nets import SEEN_9_NETS
from benchmarks.diagnosis.elsewhere.seen_10_nets import SEEN_10_NETS
from benchmarks.diagnosis.elsewhere.seen_11_nets import SEEN_11_NETS
from benchmarks.diagnosis.elsewhere.seen_nets import SEEN_NETS


def _residual(activation: Callable[[], nn.Module], blocks: int, width: int) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        def body() -> nn.Module:
            return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), activation())

        first = [nn.Flatten(), nn.Linear(width_of(data), width)]
        return nn.Sequential(*first, *(Residual(body()) for _ in range(blocks)))

    return make


def _convolutions(activation: Callable[[], nn.Module], norm: str, pool: str) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        def after(channels: int) -> list[nn.Module]:
            norms: dict[str, nn.Module] = {
                "batch": nn.BatchNorm2d(channels),
                "group": nn.GroupNorm(4, channels),
            }
            return [*([norms[norm]] if norm in norms else []), activation()]

        kind = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}[pool]
        layers = [nn.Conv2d(1, 8, 3, padding=1), *after(8), kind(2)]
        layers += [nn.Conv2d(8, 16, 3, padding=1), *after(16), nn.AdaptiveAvgPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten())

    return make


def _convolutional_residual(data: Any, settings: dict[str, Any]) -> nn.Module:
    def body() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 1)
        )

    first = nn.Conv2d(1, 12, 3, padding=1)
    return nn.Sequential(
        first, Residual(body()), Residual(body()), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    )


def _recurrent(kind: type[nn.RNNBase], how: str = "last", width: int = 24) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        first = embedded(data, settings, 12) if data.shape == "tokens" else []
        inputs = 12 if first else data.x.shape[-1]
        return nn.Sequential(*first, Read(kind(inputs, width, batch_first=True), how))

    return make


def _over_time(activation: Callable[[], nn.Module], dilation: int = 1) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        layers = [*embedded(data, settings, 12), Swap()]
        for channels in (12, 24):
            layers += [
                nn.Conv1d(channels, 24, 3, padding="same", dilation=dilation),
                activation(),
            ]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(2), nn.Flatten())

    return make


def _transformer(blocks: int, how: str, norm_first: bool) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        def block() -> nn.Module:
            return nn.TransformerEncoderLayer(
                16, 2, 32, 0.0, batch_first=True, norm_first=norm_first
            )

        first = [*embedded(data, settings, 16), Places(data.x.shape[1], 16)]
        return nn.Sequential(*first, Read(nn.Sequential(*(block() for _ in range(blocks))), how))

    return make


def _vision_transformer(data: Any, settings: dict[str, Any]) -> nn.Module:
    block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
    first = [Patches(), nn.Linear(data.x.shape[-1], 16), Places(data.x.shape[2], 16)]
    return nn.Sequential(*first, Read(block, "mean"))


def _bag(activation: Callable[[], nn.Module] | None, width: int) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        top = int(max(data.x.max(), data.val_x.max())) + 1
        bag = nn.EmbeddingBag(top, width)
        return nn.Sequential(bag, *([nn.Linear(width, width), activation()] if activation else []))

    return make


class Towers(nn.Module):
    """Two bodies, each for one half of the features, side by side."""

    def __init__(self, left: nn.Module, right: nn.Module, cut: int) -> None:
        super().__init__()
        self.left, self.right, self.cut = left, right, cut

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, features]."""
        return torch.cat([self.left(x[:, : self.cut]), self.right(x[:, self.cut :])], 1)


def _towers(data: Any, settings: dict[str, Any]) -> nn.Module:
    def tower(inputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 24), nn.ReLU(), nn.Linear(24, 24), nn.Tanh())

    cut = width_of(data) // 2
    return Towers(tower(cut), tower(width_of(data) - cut), cut)


def _gated(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    last = width_of(data)
    for _ in range(2):
        layers += [nn.Linear(last, 64), nn.GLU()]
        last = 32
    return nn.Sequential(*layers)


def _pyramid(data: Any, settings: dict[str, Any]) -> nn.Module:
    widths = (width_of(data), 64, 32, 16)
    pairs = itertools.pairwise(widths)
    layers = [part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers)


def _strided(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ELU()]
    return nn.Sequential(*layers, nn.Flatten())


def _depthwise(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.Hardswish()]
    for _ in range(2):
        layers += [nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 12, 1)]
        layers += [nn.BatchNorm2d(12), nn.Hardswish()]
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten())


class Mixed(nn.Module):
    """Mixes the rows of an image, then its columns, as an MLP-Mixer does."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(rows, 24), nn.GELU(), nn.Linear(24, rows))
        self.columns = nn.Sequential(nn.Linear(columns, 24), nn.GELU(), nn.Linear(24, columns))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, H, W] of [N, H, W]."""
        x = x + self.rows(x.transpose(1, 2)).transpose(1, 2)
        return x + self.columns(x)


def _mixer(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(Patches(), Mixed(*data.x.shape[2:]), nn.Flatten())


def _both_ways(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = embedded(data, settings, 12)
    return nn.Sequential(*first, Read(nn.GRU(12, 16, batch_first=True, bidirectional=True), "mean"))


def _two_lstms(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = embedded(data, settings, 12)
    return nn.Sequential(*first, Read(nn.LSTM(12, 24, num_layers=2, batch_first=True), "last"))


def _convolved_gru(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 12), Swap(), nn.Conv1d(12, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*first, Swap(), Read(nn.GRU(16, 20, batch_first=True), "last"))


class Attended(nn.Module):
    """One vector of a sequence: its places, weighted by a learnt attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.weight = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, T, F]."""
        hidden = torch.tanh(self.hidden(x))
        return (self.weight(hidden).softmax(1) * hidden).sum(1)


def _attention(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 20), Places(data.x.shape[1], 20)]
    return nn.Sequential(*first, Attended(20), nn.Linear(20, 32), nn.ReLU())


# by name: the part of the corpus, the shapes that it takes, what makes its body
NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "relu_2": ("tune", ("table", "image"), perceptron(nn.ReLU, 2, 32)),
    "tanh_3": ("tune", ("table",), perceptron(nn.Tanh, 3, 24)),
    "batchnorm_2": ("tune", ("table",), perceptron(nn.ReLU, 2, 32, nn.BatchNorm1d)),
    "keras_like": ("tune", ("table", "image"), perceptron(nn.ReLU, 3, 64)),
    "cnn_max": ("tune", ("image",), _convolutions(nn.ReLU, "", "max")),
    "cnn_batchnorm": ("tune", ("image",), _convolutions(nn.ReLU, "batch", "max")),
    "gru": ("tune", ("series", "tokens"), _recurrent(nn.GRU)),
    "convolution_time": ("tune", ("series", "tokens"), _over_time(nn.ReLU)),
    "bag": ("tune", ("tokens",), _bag(None, 24)),
    "transformer_1": ("tune", ("tokens", "series"), _transformer(1, "mean", False)),
    "relu_1": ("validate", ("table",), perceptron(nn.ReLU, 1, 64)),
    "gelu_norm_2": ("validate", ("table",), perceptron(nn.GELU, 2, 32, nn.LayerNorm)),
    "elu_3": ("validate", ("table",), perceptron(nn.ELU, 3, 24)),
    "residual_3": ("validate", ("table", "image"), _residual(nn.ReLU, 3, 32)),
    "cnn_mean_tanh": ("validate", ("image",), _convolutions(nn.Tanh, "", "mean")),
    "cnn_residual": ("validate", ("image",), _convolutional_residual),
    "lstm": ("validate", ("series", "tokens"), _recurrent(nn.LSTM)),
    "dilated": ("validate", ("series", "tokens"), _over_time(nn.GELU, 2)),
    "bag_relu": ("validate", ("tokens",), _bag(nn.ReLU, 32)),
    "gru_mean": ("validate", ("tokens",), _recurrent(nn.GRU, "mean", 32)),
    "silu_2": ("seen", ("table", "image"), perceptron(nn.SiLU, 2, 48)),
    "relu_4": ("seen", ("table",), perceptron(nn.ReLU, 4, 32)),
    "leaky_3": ("seen", ("table",), perceptron(nn.LeakyReLU, 3, 40)),
    "dropout_2": ("seen", ("table",), perceptron(nn.ReLU, 2, 64, None, 0.1)),
    "wide_batchnorm": ("seen", ("table",), perceptron(nn.SiLU, 1, 128, nn.BatchNorm1d)),
    "residual_tanh": ("seen", ("table",), _residual(nn.Tanh, 2, 32)),
    "cnn_groupnorm": ("seen", ("image",), _convolutions(nn.ReLU, "group", "max")),
    "cnn_silu": ("seen", ("image",), _convolutions(nn.SiLU, "", "mean")),
    "vision_transformer": ("seen", ("image",), _vision_transformer),
    "rnn": ("seen", ("series", "tokens"), _recurrent(nn.RNN)),
    "lstm_mean": ("seen", ("tokens", "series"), _recurrent(nn.LSTM, "mean", 32)),
    "transformer_2": ("seen", ("series", "tokens"), _transformer(2, "last", True)),
    "bag_gelu": ("seen", ("tokens",), _bag(nn.GELU, 48)),
    "mish_2": ("seen_2", ("table", "image"), perceptron(nn.Mish, 2, 40)),
    "selu_3": ("seen_2", ("table",), perceptron(nn.SELU, 3, 32)),
    "layernorm_3": ("seen_2", ("table", "image"), perceptron(nn.ReLU, 3, 48, nn.LayerNorm)),
    "relu_pyramid": ("seen_2", ("table",), _pyramid),
    "towers": ("seen_2", ("table",), _towers),
    "gated_2": ("seen_2", ("table", "image"), _gated),
    "residual_silu": ("seen_2", ("table",), _residual(nn.SiLU, 4, 24)),
    "cnn_strided": ("seen_2", ("image",), _strided),
    "cnn_batchnorm_depthwise": ("seen_2", ("image",), _depthwise),
    "mixer": ("seen_2", ("image",), _mixer),
    "gru_both_ways": ("seen_2", ("series", "tokens"), _both_ways),
    "lstm_twice": ("seen_2", ("series", "tokens"), _two_lstms),
    "convolved_gru": ("seen_2", ("series", "tokens"), _convolved_gru),
    "attention_pool": ("seen_2", ("series", "tokens"), _attention),
    "bag_mish": ("seen_2", ("tokens",), _bag(nn.Mish, 32)),
    **SEEN_NETS,
    **SEEN_4_NETS,
    **SEEN_5_NETS,
    **SEEN_6_NETS,
    **SEEN_7_NETS,
    **SEEN_8_NETS,
    **SEEN_9_NETS,
    **SEEN_10_NETS,
    **SEEN_11_NETS,
    **REPORT_NETS,
}


def body_and_head(data: Any, settings: dict[str, Any]) -> tuple[nn.Module, nn.Linear]:
    """Return a net's body and its output layer, which has ``settings["units"]`` outputs."""
    body = NETS[settings["net"]][2](data, settings)
    body.eval()
    with torch.no_grad():
        width = body(data.x[:2]).shape[1]
    body.train()
    head = nn.Linear(width, settings["units"])
    if settings["net"] == "keras_like":
        for part in (*body.modules(), head):
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
    return body, head
