"""The architectures of the report part of the eleventh look; time in `seen_11_time_nets`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Residual, perceptron, width_of
from benchmarks.diagnosis.elsewhere.seen_11_time_nets import SEEN_11_TIME_NETS


class SmeLU(nn.Module):
    """A ReLU whose corner is a parabola (Shamir et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 0 below -1, x above 1, and (x + 1)² / 4 between."""
        return torch.where(x.abs() <= 1, (x + 1).square() / 4, x.relu())


class Acon(nn.Module):
    """A curve that learns how much of a corner it has, one for a layer (Ma et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(-0.1))
        self.sharp = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return a smooth maximum of two lines through 0."""
        apart = (self.one - self.other) * x
        return apart * (self.sharp * apart).sigmoid() + self.other * x


class GroupSort(nn.Module):
    """Sorts the units of each group of four, which keeps all sizes (Anil et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, F]."""
        return x.view(len(x), -1, 4).sort(2).values.flatten(1)


class Wavelets(nn.Module):
    """A wavelet of its own for each pair of input and output (Bozorgasl and Chen 2024)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.middle = nn.Parameter(torch.randn(width, inputs))
        self.scale = nn.Parameter(torch.ones(width, inputs))
        self.weight = nn.Parameter(torch.randn(width, inputs) / math.sqrt(inputs))
        self.straight = nn.Linear(inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        square = ((x[:, None] - self.middle) * self.scale).square()
        hats = (1 - square) * (-square / 2).exp()
        return (self.weight * hats).sum(2) + self.straight(functional.silu(x))


def _wavelets(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), Wavelets(width_of(data), 24), nn.LayerNorm(24)]
    return nn.Sequential(*first, Wavelets(24, 24), nn.LayerNorm(24))


class Filters(nn.Module):
    """Sines of a row, multiplied by one another after linear layers (Fathony et al. 2021)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.waves = nn.ModuleList(nn.Linear(inputs, width) for _ in range(3))
        self.between = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        z = self.waves[0](x).sin()
        for wave, layer in zip(list(self.waves)[1:], self.between, strict=True):
            z = wave(x).sin() * layer(z)
        return z


def _filters(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Filters(width_of(data), 64), nn.LayerNorm(64))


class Squeezed(nn.Module):
    """Multiplies each unit by how much it matters for the row, as all of them say."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.says = nn.Sequential(nn.Linear(width, narrow), nn.ReLU(), nn.Linear(narrow, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, F]."""
        weighed: Tensor = x * 2 * self.says(x).sigmoid()
        return weighed


def _squeezed(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), Squeezed(width_of(data), 16)]
    last = width_of(data)
    for width in (64, 48):
        layers += [nn.Linear(last, width), nn.LayerNorm(width), nn.ReLU(), Squeezed(width, 12)]
        last = width
    return nn.Sequential(*layers)


class Repeated(nn.Module):
    """The same layers four times over, told how often they ran (Dehghani et al. 2019)."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.turns = nn.Parameter(0.1 * torch.randn(times, width))
        self.body = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, width]."""
        for turn in self.turns:
            x = x + self.body(x + turn)
        return x


def _repeated(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(width_of(data), 64)]
    return nn.Sequential(*first, Repeated(64, 4), nn.LayerNorm(64))


class Polynomial(nn.Module):
    """A polynomial of the third degree, without any other curve (Chrysos et al. 2020)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.factors = nn.ModuleList(nn.Linear(inputs, width) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        z = self.factors[0](x)
        for factor, norm in zip(list(self.factors)[1:], self.norms, strict=True):
            z = z + norm(factor(x) * z)
        return z


def _polynomial(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Polynomial(width_of(data), 64))


class FourBits(nn.Module):
    """A layer that reckons with weights of sixteen values, and trains as if they were exact."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        weight = self.layer.weight
        step = weight.detach().abs().amax(1, keepdim=True).clamp(min=1e-8) / 7
        coarse = weight + ((weight / step).round() * step - weight).detach()
        return functional.linear(x, coarse, self.layer.bias)


def _four_bits(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    last = width_of(data)
    for width in (80, 48):
        layers += [FourBits(last, width), nn.LayerNorm(width), nn.ReLU()]
        last = width
    return nn.Sequential(*layers)


class Cosines(nn.Module):
    """Convolutions whose kernels are learnt sums of nine cosine patterns (Ulicny et al. 2019)."""

    patterns: Tensor

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        at = torch.arange(3)
        waves = torch.cos(math.pi * (at + 0.5) * at[:, None] / 3)
        patterns = torch.einsum("ai,bj->abij", waves, waves).reshape(9, 1, 3, 3)
        patterns = patterns / patterns.flatten(1).norm(dim=1)[:, None, None, None]
        self.register_buffer("patterns", patterns)
        self.sums = nn.Conv2d(9 * before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, after, H, W] of [N, before, H, W]."""
        count = x.shape[1]
        seen = functional.conv2d(x, self.patterns.repeat(count, 1, 1, 1), padding=1, groups=count)
        out: Tensor = self.sums(seen)
        return out


def _cosines(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 12), (12, 20)):
        layers += [Cosines(before, after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(20 * _quarter(data), 48), nn.LayerNorm(48), nn.ReLU()
    )


def _quarter(data: Any) -> int:
    return int((data.x.shape[2] // 4) * (data.x.shape[3] // 4))


class Turned(nn.Module):
    """Convolutions by each kernel and its three turns (Cohen and Welling 2016)."""

    def __init__(self, before: int, after: int, size: int) -> None:
        super().__init__()
        self.kernels = nn.Conv2d(before, after, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the highest of the four turns, and their mean, [N, 2 after, H, W]."""
        turns = [
            functional.conv2d(
                x,
                self.kernels.weight.rot90(turn, (2, 3)),
                self.kernels.bias,
                padding=self.kernels.padding,
            )
            for turn in range(4)
        ]
        all_turns = torch.stack(turns)
        return torch.cat([all_turns.amax(0), all_turns.mean(0)], 1)


def _turned(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Turned(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, padding=1)]
    return nn.Sequential(
        *layers, nn.ReLU(), nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.LayerNorm(216)
    )


class PowerMean(nn.Module):
    """The mean of a learnt power of each channel, between mean and maximum (Radenović 2018)."""

    def __init__(self, channels: int, parts: int) -> None:
        super().__init__()
        self.power, self.parts = nn.Parameter(torch.full((channels, 1, 1), 3.0)), parts

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, parts, parts] of [N, C, H, W], which is not negative."""
        power = self.power.clamp(1, 8)
        mean = functional.adaptive_avg_pool2d(x.clamp(min=1e-3) ** power, self.parts)
        return mean ** (1 / power)


def _power_means(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 12), (12, 24)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(3, after), nn.ReLU()]
    return nn.Sequential(*layers, PowerMean(24, 3), nn.Flatten(), nn.LayerNorm(216))


class CrossStage(nn.Module):
    """Half of the channels through a residual block, the others past it (Wang et al. 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.body = Residual(
            nn.Sequential(*_normed(half, half, 1), *_normed(half, half, 3)),
        )
        self.mixes = nn.Sequential(*_normed(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] of [N, C, H, W]."""
        past, through = x.chunk(2, 1)
        out: Tensor = self.mixes(torch.cat([past, self.body(through)], 1))
        return out


def _normed(before: int, after: int, size: int) -> list[nn.Module]:
    layer = nn.Conv2d(before, after, size, padding=size // 2, bias=False)
    return [layer, nn.BatchNorm2d(after), nn.SiLU()]


def _cross_stage(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [*_normed(1, 16, 3), CrossStage(16), nn.MaxPool2d(2)]
    layers += [*_normed(16, 24, 3), CrossStage(24), nn.AdaptiveAvgPool2d(3)]
    return nn.Sequential(*layers, nn.Flatten())


class GlobalFilter(nn.Module):
    """Multiplies all waves of an image by learnt complex numbers (Rao et al. 2021)."""

    def __init__(self, width: int, rows: int, columns: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.filter = nn.Parameter(0.3 * torch.randn(width, rows, columns // 2 + 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] of [N, C, H, W]."""
        waves = torch.fft.rfft2(self.norm(x), norm="ortho") * torch.view_as_complex(self.filter)
        return torch.fft.irfft2(waves, s=x.shape[2:], norm="ortho")


def _global_filters(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1), nn.GELU()]
    for _ in range(2):
        inner = [nn.GroupNorm(1, 16), nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 16, 1)]
        layers += [Residual(GlobalFilter(16, *data.x.shape[2:])), Residual(nn.Sequential(*inner))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LayerNorm(256))


SEEN_11_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "smelu_3": ("seen_11", ("table", "image"), perceptron(SmeLU, 3, 48, nn.LayerNorm)),
    "acon_2": ("seen_11", ("table",), perceptron(Acon, 2, 56)),
    "group_sort": ("seen_11", ("table",), perceptron(GroupSort, 2, 64)),
    "wavelets": ("seen_11", ("table",), _wavelets),
    "multiplied_filters": ("seen_11", ("table",), _filters),
    "squeezed_features": ("seen_11", ("table",), _squeezed),
    "repeated_layers": ("seen_11", ("table", "image"), _repeated),
    "polynomial": ("seen_11", ("table",), _polynomial),
    "four_bits": ("seen_11", ("table",), _four_bits),
    "cnn_cosines": ("seen_11", ("image",), _cosines),
    "cnn_turned": ("seen_11", ("image",), _turned),
    "cnn_power_means": ("seen_11", ("image",), _power_means),
    "cnn_batchnorm_cross_stage": ("seen_11", ("image",), _cross_stage),
    "global_filters": ("seen_11", ("image",), _global_filters),
    **SEEN_11_TIME_NETS,
}
