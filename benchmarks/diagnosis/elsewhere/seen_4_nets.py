"""The architectures of what was the report part of the fourth look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

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


def _orthogonal(data: Any, settings: dict[str, Any]) -> nn.Module:
    net = perceptron(nn.ReLU, 3, 48)(data, settings)
    for part in net.modules():
        if isinstance(part, nn.Linear):
            nn.init.orthogonal_(part.weight, 2**0.5)
            nn.init.zeros_(part.bias)
    return net


class Fourier(nn.Module):
    """Sines and cosines of fixed random projections (Tancik et al. 2020)."""

    frequencies: Tensor

    def __init__(self, inputs: int, count: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(inputs, count) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 count] of [N, F]."""
        angle = x @ self.frequencies
        return torch.cat([angle.sin(), angle.cos()], 1)


def _fourier(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), Fourier(width_of(data), 32), nn.Linear(64, 48), nn.ReLU()]
    return nn.Sequential(*first, nn.Linear(48, 32), nn.ReLU())


def _gated_residual(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:  # Lim et al. 2021
        body = [nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 64), nn.GLU()]
        return nn.Sequential(Residual(nn.Sequential(*body)), nn.LayerNorm(32))

    return nn.Sequential(nn.Flatten(), nn.Linear(width_of(data), 32), block(), block())


class Experts(nn.Module):
    """Small nets side by side, weighted by a gate for each row."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, count)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))
            for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs] of [N, inputs]."""
        made = torch.stack([expert(x) for expert in self.experts], 1)
        return (self.gate(x).softmax(1)[:, :, None] * made).sum(1)


def _experts(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Experts(width_of(data), 24, 4))


class Pairs(nn.Module):
    """Hidden features beside learnt products of pairs of them."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.hidden, self.products = nn.Linear(inputs, 20), nn.Bilinear(20, 20, 20)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 40] of [N, inputs]."""
        hidden = self.hidden(x).tanh()
        return torch.cat([hidden, self.products(hidden, hidden)], 1)


def _bilinear(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Pairs(width_of(data)), nn.Linear(40, 32), nn.LeakyReLU())


def _weight_normed(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in ((width_of(data), 48), (48, 48), (48, 32)):
        layers += [weight_norm(nn.Linear(before, after)), nn.SiLU()]
    return nn.Sequential(*layers)


class FeatureTokens(nn.Module):
    """One vector for each feature of a row (Gorishniy et al. 2021)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(features, width) / width**0.5)
        self.shift = nn.Parameter(torch.randn(features, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F, width] of [N, F]."""
        return x[:, :, None] * self.scale + self.shift


def _feature_tokens(data: Any, settings: dict[str, Any]) -> nn.Module:
    blocks = (nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True) for _ in range(2))
    return nn.Sequential(
        FeatureTokens(width_of(data), 16), Read(nn.Sequential(*blocks), "mean"), nn.LayerNorm(16)
    )


class Squeezed(nn.Module):
    """Weights channels by what all of an image says (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, channels)]
        self.weigh = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] of [N, C, H, W]."""
        return x * self.weigh(x.mean((2, 3)))[:, :, None, None]


def _squeezed(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:
        return Residual(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(), Squeezed(16)))

    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), block(), nn.MaxPool2d(2), block()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def _bottlenecks(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:
        body = [nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8), nn.ReLU()]
        body += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 24, 1)]
        return nn.Sequential(Residual(nn.Sequential(*body)), nn.BatchNorm2d(24), nn.ReLU())

    first = nn.Conv2d(1, 24, 3, stride=2, padding=1)
    return nn.Sequential(first, block(), block(), nn.AdaptiveAvgPool2d(3), nn.Flatten())


class Coordinates(nn.Module):
    """Adds each pixel's place as two channels (Liu et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C + 2, H, W] of [N, C, H, W]."""
        rows, columns = (torch.linspace(-1, 1, size) for size in x.shape[2:])
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        return torch.cat([x, places.to(x).expand(len(x), -1, -1, -1)], 1)


def _coordinates(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(3, 16, 3), nn.GELU(), nn.Conv2d(16, 24, 3, stride=2), nn.GELU()]
    return nn.Sequential(Coordinates(), *layers, nn.Flatten(), nn.Linear(_flat(data), 32))


def _flat(data: Any) -> int:
    high, wide = ((size - 5) // 2 + 1 for size in data.x.shape[2:])
    return int(24 * high * wide)


class SpatialGate(nn.Module):
    """Lets half of the features through by what stands elsewhere (gMLP, Liu et al. 2021)."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(places, places)
        nn.init.normal_(self.mix.weight, std=0.01)
        nn.init.ones_(self.mix.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, 2 width]."""
        left, right = x.chunk(2, -1)
        return left * self.mix(self.norm(right).transpose(1, 2)).transpose(1, 2)


def _gated_patches(data: Any, settings: dict[str, Any]) -> nn.Module:
    places, width = data.x.shape[2:]

    def block() -> nn.Module:
        body = [nn.LayerNorm(20), nn.Linear(20, 48), nn.GELU(), SpatialGate(places, 24)]
        return Residual(nn.Sequential(*body, nn.Linear(24, 20)))

    return nn.Sequential(Patches(), nn.Linear(width, 20), block(), block(), nn.Flatten())


def _depthwise_time(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [*embedded(data, settings, 16), Swap()]
    for _ in range(2):
        layers += [nn.Conv1d(16, 16, 5, padding=2, groups=16), nn.Conv1d(16, 16, 1), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(3), nn.Flatten())


def _groupnorm_time(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:
        body = [nn.Conv1d(24, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.ReLU()]
        return Residual(nn.Sequential(*body, nn.Conv1d(24, 24, 3, padding=1)))

    first = [*embedded(data, settings, 24), Swap()]
    return nn.Sequential(*first, block(), nn.ReLU(), block(), nn.AdaptiveMaxPool1d(2), nn.Flatten())


class MinimalGated(nn.Module):
    """A recurrent net with one gate (Zhou et al. 2016), written by hand."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.gate = nn.Linear(inputs + width, width)
        self.made = nn.Linear(inputs + width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state [N, width] of [N, T, inputs]."""
        state = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            share = self.gate(torch.cat([now, state], 1)).sigmoid()
            made = self.made(torch.cat([now, share * state], 1)).tanh()
            state = (1 - share) * state + share * made
        return state


def _minimal_gated(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 12), MinimalGated(12, 24))


class Attending(nn.Module):
    """Attention of places to each other, or of a few learnt queries to them."""

    def __init__(self, width: int, queries: int = 0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.queries = nn.Parameter(torch.randn(queries, width)) if queries else None

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width], or [N, queries, width], of [N, T, width]."""
        asking = x if self.queries is None else self.queries.expand(len(x), -1, -1)
        return self.attention(asking, x, x, need_weights=False)[0]


def _learnt_queries(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 16), Places(data.x.shape[1], 16), nn.LayerNorm(16)]
    return nn.Sequential(
        *first, Attending(16, 4), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 32), nn.GELU()
    )


def _transformer_glu(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        inside = [nn.RMSNorm(20), nn.Linear(20, 80), nn.GLU(), nn.Linear(40, 20)]
        seen = nn.Sequential(nn.RMSNorm(20), Attending(20))
        return [Residual(seen), Residual(nn.Sequential(*inside))]

    first = [*embedded(data, settings, 20), Places(data.x.shape[1], 20)]
    blocks = nn.Sequential(*block(), *block(), nn.RMSNorm(20))
    return nn.Sequential(*first, Read(blocks, "mean"))


class Siamese(nn.Module):
    """One tower for both halves of a sequence, and how its outputs differ."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 3 F] of [N, T, ...]."""
        half = x.shape[1] // 2
        first, last = self.tower(x[:, :half]), self.tower(x[:, -half:])
        return torch.cat([first, last, (first - last).abs()], 1)


def _siamese(data: Any, settings: dict[str, Any]) -> nn.Module:
    half = data.x.shape[1] // 2
    layers = [*embedded(data, settings, 10), nn.ELU(), nn.Flatten(), nn.Linear(10 * half, 24)]
    return nn.Sequential(Siamese(nn.Sequential(*layers, nn.Tanh())), nn.Linear(72, 32), nn.ELU())


def _deep_sets(data: Any, settings: dict[str, Any]) -> nn.Module:
    each = nn.Sequential(*embedded(data, settings, 16), nn.Linear(16, 32), nn.ReLU())
    return nn.Sequential(Read(each, "mean"), nn.Linear(32, 32), nn.ReLU())


SEEN_4_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "hardswish_3": ("seen_4", ("table", "image"), perceptron(nn.Hardswish, 3, 40)),
    "relu_orthogonal_3": ("seen_4", ("table", "image"), _orthogonal),
    "batchnorm_gelu_3": ("seen_4", ("table",), perceptron(nn.GELU, 3, 32, nn.BatchNorm1d)),
    "fourier": ("seen_4", ("table",), _fourier),
    "gated_residual": ("seen_4", ("table",), _gated_residual),
    "experts": ("seen_4", ("table",), _experts),
    "bilinear": ("seen_4", ("table",), _bilinear),
    "weight_normed": ("seen_4", ("table",), _weight_normed),
    "feature_tokens": ("seen_4", ("table",), _feature_tokens),
    "cnn_squeezed": ("seen_4", ("image",), _squeezed),
    "cnn_batchnorm_bottlenecks": ("seen_4", ("image",), _bottlenecks),
    "cnn_coordinates": ("seen_4", ("image",), _coordinates),
    "gated_patches": ("seen_4", ("image",), _gated_patches),
    "depthwise_time": ("seen_4", ("series", "tokens"), _depthwise_time),
    "groupnorm_time": ("seen_4", ("series", "tokens"), _groupnorm_time),
    "minimal_gated": ("seen_4", ("series", "tokens"), _minimal_gated),
    "learnt_queries": ("seen_4", ("series", "tokens"), _learnt_queries),
    "transformer_glu": ("seen_4", ("series", "tokens"), _transformer_glu),
    "siamese": ("seen_4", ("series", "tokens"), _siamese),
    "deep_sets": ("seen_4", ("tokens",), _deep_sets),
}
