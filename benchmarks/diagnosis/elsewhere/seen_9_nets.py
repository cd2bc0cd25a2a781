"""The architectures of what was the report part of the ninth look; time in `seen_9_time_nets`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import (
    Make,
    Places,
    Residual,
    Swap,
    perceptron,
    width_of,
)
from benchmarks.diagnosis.elsewhere.seen_9_time_nets import SEEN_9_TIME_NETS, Biased


class Bent(nn.Module):
    """A line with a gentle bend at 0, which never lies flat."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (sqrt(x² + 1) - 1) / 2 + x."""
        return ((x.square() + 1).sqrt() - 1) / 2 + x


class TanhExp(nn.Module):
    """A smooth relative of the ReLU (Liu & Di 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x tanh(exp(x))."""
        return x * x.clamp(max=20).exp().tanh()


def _alpha_dropout(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Layers that keep their values' size by themselves (Klambauer et al. 2017), as in Keras."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in ((width_of(data), 64), (64, 48)):
        linear = nn.Linear(before, after)
        nn.init.normal_(linear.weight, std=before**-0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.SELU(), nn.AlphaDropout(0.05)]
    return nn.Sequential(*layers)


def _low_rank(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Wide layers whose weights are the product of two narrow ones (Sainath et al. 2013)."""
    layers: list[nn.Module] = [nn.Flatten()]
    last = width_of(data)
    for width in (96, 64):
        narrow, wide = nn.Linear(last, 24, bias=False), nn.Linear(24, width)
        nn.init.kaiming_normal_(wide.weight)
        nn.init.xavier_normal_(narrow.weight)
        layers += [narrow, wide, nn.ReLU(), nn.LayerNorm(width)]
        last = width
    return nn.Sequential(*layers)


class Winners(nn.Module):
    """Lets through the largest units of a row alone (Makhzani & Frey 2015)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, F]."""
        least = x.topk(self.count, 1).values[:, -1:]
        return torch.where(x >= least, x, 0.0)


def _winners(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in ((width_of(data), 96), (96, 64)):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), Winners(after // 3)]
    return nn.Sequential(*layers)


class Chebyshev(nn.Module):
    """A learnt polynomial from each input to each output (Sidharth et al. 2024)."""

    def __init__(self, inputs: int, width: int, degree: int) -> None:
        super().__init__()
        self.degree = degree
        self.shares = nn.Parameter(torch.randn(inputs, degree, width) / math.sqrt(inputs * degree))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        x = (x / 2).tanh()
        found = [x, 2 * x.square() - 1]
        while len(found) < self.degree:
            found.append(2 * x * found[-1] - found[-2])
        return torch.einsum("nid,ido->no", torch.stack(found, 2), self.shares) + self.bias


def _chebyshev(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Chebyshev(width_of(data), 48, 4), nn.LayerNorm(48), Chebyshev(48, 32, 3)]
    return nn.Sequential(nn.Flatten(), *layers, nn.LayerNorm(32))


class Fields(nn.Module):
    """A vector for each feature: its own direction times its value, and its own place."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.way = nn.Parameter(torch.randn(features, width))
        self.place = nn.Parameter(torch.randn(features, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F, width] of [N, F]."""
        return (x[:, :, None] * self.way + self.place).relu()


class Across(nn.Module):
    """A small net along another dimension."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F, width] of [N, F, width]."""
        out: Tensor = self.body(x.transpose(1, 2)).transpose(1, 2)
        return out


def _inside(width: int, wide: int) -> list[nn.Module]:
    return [nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width)]


def _field_mixer(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Mixes features, then what is known of each, as an MLP-Mixer does places and channels."""
    count = width_of(data)
    layers: list[nn.Module] = [nn.Flatten(), Fields(count, 16)]
    for _ in range(2):
        across = Across(nn.Sequential(*_inside(count, 24)))
        layers += [Residual(nn.Sequential(nn.LayerNorm(16), across))]
        layers += [Residual(nn.Sequential(nn.LayerNorm(16), *_inside(16, 32)))]
    return nn.Sequential(*layers, nn.LayerNorm(16), nn.Flatten(), nn.Linear(16 * count, 64))


class SwiGLU(nn.Module):
    """Two layers of which one, through a SiLU, is the gate of the other (Shazeer 2020)."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, 2 * wide), nn.Linear(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, width]."""
        value, gate = self.into(x).chunk(2, -1)
        out: Tensor = self.out(value * functional.silu(gate))
        return out


def _swiglu(data: Any, settings: dict[str, Any]) -> nn.Module:
    blocks = (Residual(nn.Sequential(nn.RMSNorm(48), SwiGLU(48, 64))) for _ in range(2))
    return nn.Sequential(nn.Flatten(), nn.Linear(width_of(data), 48), *blocks, nn.RMSNorm(48))


def _local_response(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Large kernels, units that dampen their neighbours, and a wide layer (Krizhevsky 2012)."""
    layers = [nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.LocalResponseNorm(5, 1e-2)]
    layers += [nn.MaxPool2d(3, 2), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()]
    layers += [nn.LocalResponseNorm(5, 1e-2), nn.AdaptiveMaxPool2d(3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(216, 64), nn.ReLU(), nn.Dropout(0.1))


def _tall_and_wide(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Kernels of one column, then of one row (Szegedy et al. 2016)."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 24)):
        layers += [nn.Conv2d(before, after, (3, 1), padding=(1, 0)), nn.LeakyReLU(0.1)]
        layers += [nn.Conv2d(after, after, (1, 3), padding=(0, 1)), nn.GroupNorm(4, after)]
        layers += [nn.LeakyReLU(0.1), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten())


class Shortcut(nn.Module):
    """Norm, activation and convolution twice, beside a shortcut of fewer places (He 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.way = nn.Conv2d(before, after, 1, stride, bias=False)
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, after, H / stride, W / stride] of [N, before, H, W]."""
        x = self.first(x)
        out: Tensor = self.way(x) + self.body(x)
        return out


def _wide(data: Any, settings: dict[str, Any]) -> nn.Module:
    """A residual net that is wide and not deep (Zagoruyko & Komodakis 2016)."""
    layers = [nn.Conv2d(1, 8, 3, padding=1, bias=False), Shortcut(8, 24, 1), Shortcut(24, 32, 2)]
    last = [nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, *last)


class Windows(nn.Module):
    """Attention within windows of three by three places, which may be shifted (Liu et al. 2021)."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.places = nn.Parameter(torch.zeros(heads, 9, 9))
        self.heads, self.shift = heads, shift

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, H, W, width] of the same, with H and W multiples of 3."""
        x = x.roll((-self.shift, -self.shift), (1, 2))
        rows, columns = x.shape[1] // 3, x.shape[2] // 3
        cut = x.unflatten(1, (rows, 3)).unflatten(3, (columns, 3)).transpose(2, 3)
        parts = self.ask(cut.reshape(-1, 9, x.shape[3])).unflatten(2, (3, self.heads, -1))
        question, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(question, key, value, self.places)
        out = self.out(seen.transpose(1, 2).flatten(2)).view(cut.shape)
        out = out.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        found: Tensor = out.roll((self.shift, self.shift), (1, 2))
        return found


class Squares(nn.Module):
    """Six by six vectors of an image, with their places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.AdaptiveAvgPool2d(6))
        self.places = Places(36, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 6, 6, width] of [N, 1, H, W]."""
        found: Tensor = self.places(self.into(x).flatten(2).transpose(1, 2))
        return found.unflatten(1, (6, 6))


class Quarters(nn.Module):
    """The mean of each quarter of an image of vectors."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 4 width] of [N, H, W, width]."""
        return functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 2).flatten(1)


def _windows(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [Squares(32)]
    for shift in (0, 1):
        layers += [Residual(nn.Sequential(nn.LayerNorm(32), Windows(32, 4, shift)))]
        layers += [Residual(nn.Sequential(nn.LayerNorm(32), *_inside(32, 64)))]
    return nn.Sequential(*layers, nn.LayerNorm(32), Quarters())


class Weighed(nn.Module):
    """The mean of places, weighted by a learnt layer, beside the mean of all (Hassani 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 3 width] of [N, T, width]."""
        found = self.weight(x).softmax(1).transpose(1, 2) @ x
        return torch.cat([found.flatten(1), x.mean(1)], 1)


def _compact(data: Any, settings: dict[str, Any]) -> nn.Module:
    """A transformer whose tokens come from convolutions (Hassani et al. 2021)."""
    first = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1)]
    first += [nn.ReLU(), nn.AdaptiveMaxPool2d(4), nn.Flatten(2), Swap()]
    blocks = [Places(16, 32)]
    for _ in range(2):
        blocks += [Residual(nn.Sequential(nn.LayerNorm(32), Biased(32, 4, 16)))]
        blocks += [Residual(nn.Sequential(nn.LayerNorm(32), *_inside(32, 64)))]
    return nn.Sequential(*first, *blocks, nn.LayerNorm(32), Weighed(32))


SEEN_9_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "bent_3": ("seen_9", ("table", "image"), perceptron(Bent, 3, 48, nn.LayerNorm)),
    "tanhexp_2": ("seen_9", ("table",), perceptron(TanhExp, 2, 56)),
    "alpha_dropout": ("seen_9", ("table",), _alpha_dropout),
    "low_rank": ("seen_9", ("table", "image"), _low_rank),
    "winners": ("seen_9", ("table",), _winners),
    "chebyshev": ("seen_9", ("table",), _chebyshev),
    "field_mixer": ("seen_9", ("table",), _field_mixer),
    "swiglu": ("seen_9", ("table",), _swiglu),
    "cnn_local_response": ("seen_9", ("image",), _local_response),
    "cnn_tall_and_wide": ("seen_9", ("image",), _tall_and_wide),
    "cnn_batchnorm_wide": ("seen_9", ("image",), _wide),
    "windows": ("seen_9", ("image",), _windows),
    "compact_transformer": ("seen_9", ("image",), _compact),
    **SEEN_9_TIME_NETS,
}
