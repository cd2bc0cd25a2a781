"""What small nets are made of: wrappers, and perceptrons of any activation."""

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


def width_of(data: Any) -> int:
    """Return how many features a row, or a place of a sequence, has."""
    return data.x[0].numel() if data.shape in ("table", "image") else data.x.shape[-1]


def perceptron(
    activation: Callable[[], nn.Module],
    hidden: int,
    width: int,
    norm: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
) -> Make:
    """Return linear layers; `deeper` in the settings adds some, `activation` replaces theirs."""

    def make(data: Any, settings: dict[str, Any]) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        between = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}.get(
            settings.get("activation", ""), activation
        )
        last = width_of(data)
        for _ in range(hidden + settings.get("deeper", 0)):
            layers += [nn.Linear(last, width), *([norm(width)] if norm else []), between()]
            layers += [nn.Dropout(dropout)] if dropout else []
            last = width
        return nn.Sequential(*layers)

    return make


def embedded(data: Any, settings: dict[str, Any], width: int) -> list[nn.Module]:
    """What turns tokens or numbers over time into vectors over time."""
    if data.shape == "tokens":
        return [nn.Embedding(int(max(data.x.max(), data.val_x.max())) + 1, width)]
    return [nn.Linear(data.x.shape[-1], width)]


class Patches(nn.Module):
    """Cuts an image into its rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, H, W] of [N, 1, H, W]."""
        return x[:, 0]
