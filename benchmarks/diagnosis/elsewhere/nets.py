"""Thirty small architectures, by the shape of their inputs; their parts are made to be broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Make = Callable[[Any, dict[str, Any]], nn.Module]


class Residual(nn.Module):
    """Adds what a body makes of the input to it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return x + body(x)."""
        return x + self.body(x)


class Read(nn.Module):
    """One number or vector of a sequence: its last state, its mean, or a recurrent net's output."""

    def __init__(self, layer: nn.Module, how: str) -> None:
        super().__init__()
        self.layer, self.how = layer, how

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, T, F]."""
        out = self.layer(x)
        out = out[0] if isinstance(out, tuple) else out
        return out[:, -1] if self.how == "last" else out.mean(1)


class Swap(nn.Module):
    """Exchanges time and features, for convolutions over time."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F, T] of [N, T, F]."""
        return x.transpose(1, 2)


class Places(nn.Module):
    """Adds a learnt vector to each place of a sequence."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its places."""
        return x + self.place


def _width(data: Any) -> int:
    return data.x[0].numel() if data.shape in ("table", "image") else data.x.shape[-1]


def _perceptron(
    activation: Callable[[], nn.Module],
    hidden: int,
    width: int,
    norm: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
) -> Make:
    """Linear layers; `deeper` in the settings adds some, `activation` replaces what is between."""

    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        between = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}.get(
            settings.get("activation", ""), activation
        )
        last = _width(data)
        for _ in range(hidden + settings.get("deeper", 0)):
            layers += [nn.Linear(last, width), *([norm(width)] if norm else []), between()]
            layers += [nn.Dropout(dropout)] if dropout else []
            last = width
        return nn.Sequential(*layers)

    return make


def _residual(activation: Callable[[], nn.Module], blocks: int, width: int) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        def body() -> nn.Module:
            return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), activation())

        first = [nn.Flatten(), nn.Linear(_width(data), width)]
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


def _embedded(data: Any, settings: dict[str, Any], width: int) -> list[nn.Module]:
    """What turns tokens or numbers over time into vectors over time."""
    if data.shape == "tokens":
        return [nn.Embedding(int(max(data.x.max(), data.val_x.max())) + 1, width)]
    return [nn.Linear(data.x.shape[-1], width)]


def _recurrent(kind: type[nn.RNNBase], how: str = "last", width: int = 24) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        first = _embedded(data, settings, 12) if data.shape == "tokens" else []
        inputs = 12 if first else data.x.shape[-1]
        return nn.Sequential(*first, Read(kind(inputs, width, batch_first=True), how))

    return make


def _over_time(activation: Callable[[], nn.Module], dilation: int = 1) -> Make:
    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        layers = [*_embedded(data, settings, 12), Swap()]
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

        first = [*_embedded(data, settings, 16), Places(data.x.shape[1], 16)]
        return nn.Sequential(*first, Read(nn.Sequential(*(block() for _ in range(blocks))), how))

    return make


class Patches(nn.Module):
    """Cuts an image into its rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, H, W] of [N, 1, H, W]."""
        return x[:, 0]


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


# by name: the part of the corpus, the shapes that it takes, what makes its body
NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "relu_2": ("tune", ("table", "image"), _perceptron(nn.ReLU, 2, 32)),
    "tanh_3": ("tune", ("table",), _perceptron(nn.Tanh, 3, 24)),
    "batchnorm_2": ("tune", ("table",), _perceptron(nn.ReLU, 2, 32, nn.BatchNorm1d)),
    "keras_like": ("tune", ("table", "image"), _perceptron(nn.ReLU, 3, 64)),
    "cnn_max": ("tune", ("image",), _convolutions(nn.ReLU, "", "max")),
    "cnn_batchnorm": ("tune", ("image",), _convolutions(nn.ReLU, "batch", "max")),
    "gru": ("tune", ("series", "tokens"), _recurrent(nn.GRU)),
    "convolution_time": ("tune", ("series", "tokens"), _over_time(nn.ReLU)),
    "bag": ("tune", ("tokens",), _bag(None, 24)),
    "transformer_1": ("tune", ("tokens", "series"), _transformer(1, "mean", False)),
    "relu_1": ("validate", ("table",), _perceptron(nn.ReLU, 1, 64)),
    "gelu_norm_2": ("validate", ("table",), _perceptron(nn.GELU, 2, 32, nn.LayerNorm)),
    "elu_3": ("validate", ("table",), _perceptron(nn.ELU, 3, 24)),
    "residual_3": ("validate", ("table", "image"), _residual(nn.ReLU, 3, 32)),
    "cnn_mean_tanh": ("validate", ("image",), _convolutions(nn.Tanh, "", "mean")),
    "cnn_residual": ("validate", ("image",), _convolutional_residual),
    "lstm": ("validate", ("series", "tokens"), _recurrent(nn.LSTM)),
    "dilated": ("validate", ("series", "tokens"), _over_time(nn.GELU, 2)),
    "bag_relu": ("validate", ("tokens",), _bag(nn.ReLU, 32)),
    "gru_mean": ("validate", ("tokens",), _recurrent(nn.GRU, "mean", 32)),
    "silu_2": ("report", ("table", "image"), _perceptron(nn.SiLU, 2, 48)),
    "relu_4": ("report", ("table",), _perceptron(nn.ReLU, 4, 32)),
    "leaky_3": ("report", ("table",), _perceptron(nn.LeakyReLU, 3, 40)),
    "dropout_2": ("report", ("table",), _perceptron(nn.ReLU, 2, 64, None, 0.1)),
    "wide_batchnorm": ("report", ("table",), _perceptron(nn.SiLU, 1, 128, nn.BatchNorm1d)),
    "residual_tanh": ("report", ("table",), _residual(nn.Tanh, 2, 32)),
    "cnn_groupnorm": ("report", ("image",), _convolutions(nn.ReLU, "group", "max")),
    "cnn_silu": ("report", ("image",), _convolutions(nn.SiLU, "", "mean")),
    "vision_transformer": ("report", ("image",), _vision_transformer),
    "rnn": ("report", ("series", "tokens"), _recurrent(nn.RNN)),
    "lstm_mean": ("report", ("tokens", "series"), _recurrent(nn.LSTM, "mean", 32)),
    "transformer_2": ("report", ("series", "tokens"), _transformer(2, "last", True)),
    "bag_gelu": ("report", ("tokens",), _bag(nn.GELU, 48)),
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
