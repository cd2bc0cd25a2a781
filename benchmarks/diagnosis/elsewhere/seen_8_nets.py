"""The architectures of what was the report part of the eighth look; time in `seen_8_time_nets`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Residual, perceptron, width_of
from benchmarks.diagnosis.elsewhere.seen_8_time_nets import SEEN_8_TIME_NETS


class Arctan(nn.Module):
    """The arc tangent, which goes on rising for longer than the tangent of the hyperbola."""

    def forward(self, x: Tensor) -> Tensor:
        """Return atan(x)."""
        return x.atan()


def _normalised_after(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Layers as in many a Keras notebook: Glorot's start, the norm behind the activation."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in ((width_of(data), 64), (64, 32)):
        linear = nn.Linear(before, after)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(), nn.BatchNorm1d(after), nn.Dropout(0.05)]
    return nn.Sequential(*layers)


class FromNothing(nn.Module):
    """A residual block whose share in the sum is learnt, from 0 on (Bachlechner et al. 2021)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.share = body, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + share body(x)."""
        added: Tensor = self.share * self.body(x)
        return x + added


def _from_nothing(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:
        return FromNothing(nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48)))

    first = [nn.Flatten(), nn.Linear(width_of(data), 48), nn.LayerNorm(48), nn.ReLU()]
    return nn.Sequential(*first, block(), block(), block(), nn.LayerNorm(48))


class Memory(nn.Module):
    """A row asks learnt keys and reads the values beside them (Sukhbaatar et al. 2015)."""

    def __init__(self, inputs: int, width: int, cells: int) -> None:
        super().__init__()
        self.into, self.ask = nn.Linear(inputs, width), nn.Linear(inputs, 16)
        self.keys = nn.Parameter(torch.randn(cells, 16))
        self.values = nn.Parameter(torch.randn(cells, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 width] of [N, inputs]."""
        found = (self.ask(x) @ self.keys.T / 2).softmax(1) @ self.values
        return torch.cat([self.into(x).relu(), found], 1)


def _memory(data: Any, settings: dict[str, Any]) -> nn.Module:
    last = [nn.LayerNorm(80), nn.Linear(80, 48), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), Memory(width_of(data), 40, 32), *last)


class Noise(nn.Module):
    """Adds noise in training."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return x, and noise beside it."""
        return x + self.size * torch.randn_like(x) if self.training else x


def _noise(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), Noise(0.05)]
    for before, after in ((width_of(data), 64), (64, 48)):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.LeakyReLU(0.1), Noise(0.05)]
    return nn.Sequential(*layers)


class Whitened(nn.Module):
    """Turns features into components of the rows to train on, each of one size."""

    mean: Tensor
    turn: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        x = rows.flatten(1).double().nan_to_num()
        mean = x.mean(0)
        values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        size = (values + 0.05 * values.mean() + 1e-9).sqrt()
        self.register_buffer("mean", mean.float())
        self.register_buffer("turn", (vectors / size).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, ...]."""
        return (x.flatten(1) - self.mean) @ self.turn


def _whitened(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Linear(width_of(data), 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU()]
    return nn.Sequential(Whitened(data.x), *layers)


class Blocks(nn.Module):
    """Groups of units that see only each other; then they are dealt to new groups."""

    def __init__(self, groups: int, each: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(groups, each, each) * math.sqrt(2 / each))
        self.bias = nn.Parameter(torch.zeros(groups, each))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, groups each] of the same."""
        made = torch.einsum("ngi,gio->ngo", x.view(len(x), *self.bias.shape), self.weight)
        return (made + self.bias).relu().transpose(1, 2).flatten(1)


def _block_diagonal(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(width_of(data), 64), nn.ReLU()]
    blocks = (part for _ in range(2) for part in (Residual(Blocks(4, 16)), nn.LayerNorm(64)))
    return nn.Sequential(*first, *blocks)


class Fire(nn.Module):
    """Squeezes channels, then widens them by two sizes of kernel (Iandola et al. 2016)."""

    def __init__(self, before: int, few: int, each: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, few, 1)
        self.small, self.large = nn.Conv2d(few, each, 1), nn.Conv2d(few, each, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 each, H, W] of [N, before, H, W]."""
        x = self.squeeze(x).relu()
        return torch.cat([self.small(x), self.large(x)], 1).relu()


def _fire(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), Fire(16, 12, 12), nn.MaxPool2d(2)]
    layers += [Fire(24, 16, 16), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.LayerNorm(288)]
    return nn.Sequential(*layers)


class Ghosts(nn.Module):
    """Channels, and cheap further ones that are each made of one of them (Han et al. 2020)."""

    def __init__(self, before: int, each: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(before, each, 3, padding=1, bias=False), nn.BatchNorm2d(each), nn.ReLU()
        )
        self.cheap = nn.Sequential(
            nn.Conv2d(each, each, 3, padding=1, groups=each, bias=False),
            nn.BatchNorm2d(each),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 each, H, W] of [N, before, H, W]."""
        x = self.first(x)
        return torch.cat([x, self.cheap(x)], 1)


def _ghosts(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Ghosts(1, 8), nn.MaxPool2d(2), Ghosts(16, 12), nn.AdaptiveAvgPool2d(3)]
    return nn.Sequential(*layers, nn.Flatten())


class Atrous(nn.Module):
    """Kernels of one size that look near, farther and farthest, side by side (Chen et al. 2017)."""

    def __init__(self, before: int, each: int) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(
            nn.Conv2d(before, each, 3, padding=wide, dilation=wide) for wide in (1, 2, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 3 each, H, W] of [N, before, H, W]."""
        return torch.cat([body(x) for body in self.bodies], 1)


def _atrous(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), Atrous(12, 8), nn.GroupNorm(4, 24)]
    layers += [nn.ReLU(), nn.Conv2d(24, 20, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return nn.Sequential(*layers, nn.LayerNorm(320), nn.Linear(320, 48), nn.ReLU())


class Axial(nn.Module):
    """Attention of a place to those in its row, then to those in its column (Ho et al. 2019)."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.asks = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.outs = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, H, W, width] of the same."""
        for norm, ask, out in zip(self.norms, self.asks, self.outs, strict=True):
            parts = ask(norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(2, 4)
            seen = functional.scaled_dot_product_attention(*parts.unbind(3))
            x = x + out(seen.transpose(2, 3).flatten(3))
            x = x.transpose(1, 2)
        return x


class Squares(nn.Module):
    """Cuts an image into squares of two by two, each a vector with its place."""

    def __init__(self, high: int, wide: int, width: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(1, width, 2, stride=2)
        self.places, self.size = Places(high // 2 * (wide // 2), width), (high // 2, wide // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, H / 2, W / 2, width] of [N, 1, H, W]."""
        found: Tensor = self.places(self.into(x).flatten(2).transpose(1, 2))
        return found.view(len(x), *self.size, -1)


class Quarters(nn.Module):
    """The mean of each quarter of an image of vectors."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 4 width] of [N, H, W, width]."""
        return functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 2).flatten(1)


def _axial(data: Any, settings: dict[str, Any]) -> nn.Module:
    def inside() -> nn.Module:
        layers = [nn.LayerNorm(24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24)]
        return Residual(nn.Sequential(*layers))

    high, wide = data.x.shape[2:]
    first = Squares(high, wide, 24)
    blocks = [Axial(24), inside(), Axial(24), inside(), nn.LayerNorm(24)]
    return nn.Sequential(first, *blocks, Quarters())


class Covariances(nn.Module):
    """How channels vary together over an image (Lin et al. 2015), beside their means in parts."""

    pairs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.triu_indices(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C (C + 1) / 2 + 9 C] of [N, C, H, W]."""
        flat = x.flatten(2)
        flat = flat - flat.mean(2, keepdim=True)
        both = (flat @ flat.transpose(1, 2) / flat.shape[2])[:, self.pairs[0], self.pairs[1]]
        rooted = both.sign() * ((both.abs() + 1e-4).sqrt() - 1e-2)
        return torch.cat([rooted, functional.adaptive_avg_pool2d(x, 3).flatten(1)], 1)


def _covariances(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(), Covariances(12), nn.LayerNorm(186))


SEEN_8_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "hardtanh_2": ("seen_8", ("table", "image"), perceptron(nn.Hardtanh, 2, 64)),
    "arctan_3": ("seen_8", ("table",), perceptron(Arctan, 3, 48, nn.LayerNorm)),
    "rrelu_2": ("seen_8", ("table",), perceptron(nn.RReLU, 2, 56)),
    "batchnorm_after": ("seen_8", ("table",), _normalised_after),
    "from_nothing": ("seen_8", ("table", "image"), _from_nothing),
    "memory": ("seen_8", ("table",), _memory),
    "gaussian_noise": ("seen_8", ("table",), _noise),
    "whitened": ("seen_8", ("table",), _whitened),
    "block_diagonal": ("seen_8", ("table",), _block_diagonal),
    "cnn_fire": ("seen_8", ("image",), _fire),
    "cnn_batchnorm_ghosts": ("seen_8", ("image",), _ghosts),
    "cnn_atrous": ("seen_8", ("image",), _atrous),
    "axial": ("seen_8", ("image",), _axial),
    "cnn_covariances": ("seen_8", ("image",), _covariances),
    **SEEN_8_TIME_NETS,
}
