"""The architectures of what was the report part of the tenth look; time in `seen_10_time_nets`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Residual, perceptron, width_of
from benchmarks.diagnosis.elsewhere.seen_10_time_nets import SEEN_10_TIME_NETS


class QuickGELU(nn.Module):
    """The GELU as CLIP computes it (Radford et al. 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x sigmoid(1.702 x)."""
        return x * (1.702 * x).sigmoid()


class ISRU(nn.Module):
    """A bounded curve without an exponential (Carlile et al. 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x / sqrt(1 + x²)."""
        return x * (1 + x.square()).rsqrt()


class Chooses(nn.Module):
    """Lets each feature through as far as a learnt gate of its own is open (Yamada et al. 2020)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.open = nn.Parameter(torch.full((features,), 0.8))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, F]; in training the gates tremble."""
        tremor = 0.1 * torch.randn_like(x) if self.training else 0.0
        return x * (self.open + tremor).clamp(0, 1)


def _chosen(data: Any, settings: dict[str, Any]) -> nn.Module:
    count = width_of(data)
    layers = [nn.Linear(count, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 64)]
    return nn.Sequential(nn.Flatten(), Chooses(count), *layers, nn.LayerNorm(64), nn.ReLU())


class TopTwo(nn.Module):
    """Small nets of which each row asks the two that its gate likes best (Shazeer et al. 2017)."""

    def __init__(self, inputs: int, width: int, count: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, count)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, 48), nn.GELU(), nn.Linear(48, width))
            for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        best = self.gate(x).topk(2, 1)
        weights = torch.zeros(len(x), len(self.experts), dtype=x.dtype, device=x.device)
        weights = weights.scatter(1, best.indices, best.values.softmax(1))
        said = torch.stack([expert(x) for expert in self.experts], 1)
        return (weights[:, :, None] * said).sum(1)


def _top_two(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(width_of(data), 32), nn.GELU()]
    return nn.Sequential(*first, TopTwo(32, 48, 6), nn.LayerNorm(48))


class Hyper(nn.Module):
    """A layer whose weights another layer makes of the row (Ha et al. 2017)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.sizes = inputs, width
        self.sees = nn.Linear(inputs, 12)
        self.makes = nn.Linear(12, inputs * width)
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.makes.weight, std=0.5 / math.sqrt(12 * inputs))
        nn.init.normal_(self.makes.bias, std=1 / math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        weights = self.makes(self.sees(x).tanh()).unflatten(1, self.sizes)
        return torch.einsum("ni,nio->no", x, weights) + self.bias


def _hyper(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(width_of(data), 24), nn.LayerNorm(24), nn.SiLU()]
    return nn.Sequential(*first, Hyper(24, 32), nn.LayerNorm(32), nn.SiLU())


class Unit(nn.Module):
    """A layer of weights of size 1, whose output is divided by the root of its inputs instead."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, inputs))
        self.bias = nn.Parameter(0.5 * torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        return functional.linear(x, self.weight / math.sqrt(x.shape[1]), self.bias)


class Stretch(nn.Module):
    """A learnt factor for each feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, F], clipped softly at some 3."""
        x = x * self.by
        return x / (1 + (x / 3).square()).sqrt()


def _scaled(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Good habits for tables in one net (Holzmüller et al. 2024)."""
    layers: list[nn.Module] = [nn.Flatten(), Stretch(width_of(data))]
    for before, after in ((width_of(data), 64), (64, 64)):
        layers += [Unit(before, after), nn.Mish()]
    return nn.Sequential(*layers, nn.LayerNorm(64))


def _convolved(data: Any, settings: dict[str, Any]) -> nn.Module:
    """A layer that puts features in an order, and convolutions over it, as on Kaggle."""
    layers = [nn.Flatten(), nn.Linear(width_of(data), 128), nn.CELU(0.1), nn.Unflatten(1, (8, 16))]
    layers += [nn.Conv1d(8, 24, 5, padding=2), nn.ReLU(), nn.AvgPool1d(2)]
    layers += [nn.Conv1d(24, 24, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.LayerNorm(96))


class Complex(nn.Module):
    """A layer of complex numbers, whose sizes pass a ReLU and whose angles stay (Arjovsky 2016)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.real, self.unreal = nn.Linear(inputs, width), nn.Linear(inputs, width)
        self.least = nn.Parameter(torch.full((width,), -0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2, width] of [N, 2, inputs]: real and imaginary parts."""
        one, other = x.unbind(1)
        parts = self.real(one) - self.unreal(other), self.real(other) + self.unreal(one)
        found = torch.stack(parts, 1)
        size = (found.square().sum(1, keepdim=True) + 1e-6).sqrt()
        return found * ((size + self.least).relu() / size)


def _complex(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(width_of(data), 48), nn.Unflatten(1, (2, 24))]
    return nn.Sequential(*first, Complex(24, 32), Complex(32, 32), nn.Flatten(), nn.LayerNorm(64))


class Beside(nn.Module):
    """What a body makes of a row, beside the row."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F + more] of [N, F]."""
        return torch.cat([x, self.body(x)], 1)


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after), nn.LayerNorm(after), nn.LeakyReLU(0.1)]


def _hourglass(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Layers that grow narrow and wide again, with ways past the narrow ones."""
    inner = Beside(nn.Sequential(*_layer(40, 20), *_layer(20, 40)))
    outer = Beside(nn.Sequential(*_layer(80, 40), inner, *_layer(80, 48)))
    return nn.Sequential(nn.Flatten(), *_layer(width_of(data), 80), outer)


def _instance_norm(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Each channel of each image brought to one size, as where styles are learnt."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 24)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.InstanceNorm2d(after, affine=True)]
        layers += [nn.LeakyReLU(0.2), nn.MaxPool2d(2)]
    last = [nn.Linear(24 * _quarter(data), 64), nn.LayerNorm(64), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), *last)


def _quarter(data: Any) -> int:
    return int((data.x.shape[2] // 4) * (data.x.shape[3] // 4))


class Octaves(nn.Module):
    """Fine channels and coarse ones of half the size, which tell each other (Chen et al. 2019)."""

    def __init__(self, fine: int, coarse: int, after: int) -> None:
        super().__init__()
        self.fine, self.down = (nn.Conv2d(fine, after, 3, padding=1) for _ in range(2))
        self.coarse, self.up = (nn.Conv2d(coarse, after, 3, padding=1) for _ in range(2))

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return channels of both sizes."""
        fine, coarse = x
        risen = functional.interpolate(self.up(coarse), fine.shape[2:])
        small = functional.adaptive_avg_pool2d(fine, (coarse.shape[2], coarse.shape[3]))
        return (self.fine(fine) + risen).relu(), (self.coarse(coarse) + self.down(small)).relu()


class Both(nn.Module):
    """Octaves of an image, one after the other, and what they see in each of its ninths."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Octaves(1, 1, 10), Octaves(10, 10, 12)])

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 216] of [N, 1, H, W]."""
        both = x, functional.avg_pool2d(x, 2)
        for layer in self.layers:
            both = layer(both)
        pooled = [functional.adaptive_max_pool2d(each, 3).flatten(1) for each in both]
        return torch.cat(pooled, 1)


def _octaves(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(Both(), nn.Linear(216, 48), nn.ReLU())


class Branches(nn.Module):
    """A large, a small and no convolution, whose outputs are added (Ding et al. 2021)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        sizes = ((3, 1), (1, 0))
        self.ways = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, size, padding=pad, bias=False), nn.BatchNorm2d(after)
            )
            for size, pad in sizes
        )
        if before == after:
            self.ways.append(nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, after, H, W] of [N, before, H, W]."""
        return torch.stack([way(x) for way in self.ways]).sum(0).relu()


def _branches(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Branches(1, 16), Branches(16, 16), nn.MaxPool2d(2), Branches(16, 24)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())


class Involution(nn.Module):
    """Kernels that each place makes for itself and its channels share (Li et al. 2021)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.makes = nn.Sequential(
            nn.Conv2d(width, 12, 1), nn.GroupNorm(2, 12), nn.ReLU(), nn.Conv2d(12, 9 * groups, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] of [N, C, H, W]."""
        kernels = self.makes(x).unflatten(1, (self.groups, 1, 9))
        near = functional.unfold(x, 3, padding=1).unflatten(2, x.shape[2:])
        near = near.unflatten(1, (self.groups, x.shape[1] // self.groups, 9))
        out: Tensor = (kernels * near).sum(3).flatten(1, 2)
        return out


def _involution(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()]
    for after in (16, 24):
        layers += [Residual(Involution(16, 4)), nn.GroupNorm(4, 16), nn.ReLU()]
        layers += [nn.Conv2d(16, after, 1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LayerNorm(24 * _quarter(data)))


class Latents(nn.Module):
    """Learnt vectors that look at all pixels, and then at each other (Jaegle et al. 2021)."""

    def __init__(self, pixels: int, width: int, count: int) -> None:
        super().__init__()
        self.into = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Flatten(2))
        self.places, self.norm = Places(pixels, width), nn.LayerNorm(width)
        self.latents = nn.Parameter(0.3 * torch.randn(count, width))
        self.looks = nn.MultiheadAttention(width, 4, batch_first=True)
        self.thinks = nn.TransformerEncoderLayer(
            width, 4, 48, 0.0, functional.gelu, batch_first=True, norm_first=True
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, count width] of [N, 1, H, W]."""
        seen = self.norm(self.places(self.into(x).transpose(1, 2)))
        asked = self.latents.expand(len(x), -1, -1)
        found = asked + self.looks(asked, seen, seen, need_weights=False)[0]
        out: Tensor = self.thinks(found).flatten(1)
        return out


def _perceiver(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(Latents(data.x[0].numel(), 32, 6), nn.LayerNorm(192))


SEEN_10_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "quick_gelu_3": ("seen_10", ("table", "image"), perceptron(QuickGELU, 3, 48, nn.LayerNorm)),
    "isru_2": ("seen_10", ("table",), perceptron(ISRU, 2, 56)),
    "chosen_features": ("seen_10", ("table",), _chosen),
    "top_two_experts": ("seen_10", ("table",), _top_two),
    "hypernetwork": ("seen_10", ("table",), _hyper),
    "scaled_features": ("seen_10", ("table",), _scaled),
    "convolved_features": ("seen_10", ("table",), _convolved),
    "complex_numbers": ("seen_10", ("table",), _complex),
    "hourglass": ("seen_10", ("table", "image"), _hourglass),
    "cnn_instance_norm": ("seen_10", ("image",), _instance_norm),
    "cnn_octaves": ("seen_10", ("image",), _octaves),
    "cnn_batchnorm_branches": ("seen_10", ("image",), _branches),
    "cnn_involution": ("seen_10", ("image",), _involution),
    "perceiver": ("seen_10", ("image",), _perceiver),
    **SEEN_10_TIME_NETS,
}
