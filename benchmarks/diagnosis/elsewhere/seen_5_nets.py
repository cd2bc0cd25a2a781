"""The architectures of what was the report part of the fifth look; time: `seen_5_time_nets.py`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Residual, perceptron, width_of
from benchmarks.diagnosis.elsewhere.seen_5_time_nets import SEEN_5_TIME_NETS


def _groups(width: int) -> nn.Module:
    return nn.GroupNorm(4, width)


class Maxout(nn.Module):
    """The largest of a few linear layers, unit by unit (Goodfellow et al. 2013)."""

    def __init__(self, inputs: int, outputs: int, pieces: int = 3) -> None:
        super().__init__()
        self.linear, self.pieces = nn.Linear(inputs, outputs * pieces), pieces

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs] of [N, inputs]."""
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


def _maxout(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Maxout(width_of(data), 32), Maxout(32, 24))


class Radial(nn.Module):
    """How near a row is to each of some learnt centres, which start on rows of the data."""

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.centres = nn.Parameter(centres.clone())
        width = math.log(centres.shape[1])
        self.log_width = nn.Parameter(torch.full((len(centres),), width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, centres] of [N, F]."""
        squares = (x[:, None] - self.centres).square().sum(2)
        return (-squares / self.log_width.exp()).exp()


def _radial(data: Any, settings: dict[str, Any]) -> nn.Module:
    near = Radial(data.x[:64].flatten(1))
    count = len(near.centres)
    last = [nn.LayerNorm(count), nn.Linear(count, 40), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), near, *last)


class Splines(nn.Module):
    """A learnt curve from each input to each output, of bumps on a grid (Liu et al. 2024)."""

    grid: Tensor

    def __init__(self, inputs: int, outputs: int, bumps: int = 7) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2.5, 2.5, bumps))
        self.apart = 5 / (bumps - 1)
        self.curves = nn.Linear(inputs * bumps, outputs)
        self.straight = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs] of [N, inputs]."""
        bumps = (-((x[:, :, None] - self.grid) / self.apart).square()).exp()
        return self.curves(bumps.flatten(1)) + self.straight(functional.silu(x))


def _splines(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), Splines(width_of(data), 24), nn.LayerNorm(24)]
    return nn.Sequential(*first, Splines(24, 24))


class Sine(nn.Module):
    """A linear layer and a sine, started as Sitzmann et al. (2020) do."""

    def __init__(self, inputs: int, outputs: int, speed: float, is_first: bool = False) -> None:
        super().__init__()
        self.linear, self.speed = nn.Linear(inputs, outputs), speed
        bound = 1 / inputs if is_first else math.sqrt(6 / inputs) / speed
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs] of [N, inputs]."""
        return (self.speed * self.linear(x)).sin()


def _sines(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = Sine(width_of(data), 48, 4.0, is_first=True)
    return nn.Sequential(nn.Flatten(), first, Sine(48, 48, 4.0), Sine(48, 32, 4.0))


def _residual_batchnorm(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:  # Gorishniy et al. 2021
        body = [nn.BatchNorm1d(32), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)]
        return Residual(nn.Sequential(*body))

    first = [nn.Flatten(), nn.Linear(width_of(data), 32)]
    return nn.Sequential(*first, block(), block(), nn.BatchNorm1d(32), nn.ReLU())


class Crossed(nn.Module):
    """Products of features, learnt layer by layer, beside a small net (Wang et al. 2021)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(2))
        self.deep = nn.Sequential(
            nn.Linear(inputs, 40), nn.LeakyReLU(), nn.Linear(40, 24), nn.LeakyReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F + 24] of [N, F]."""
        crossed = x
        for cross in self.crosses:
            crossed = x * cross(crossed) + crossed
        return torch.cat([crossed, self.deep(x)], 1)


def _crossed(data: Any, settings: dict[str, Any]) -> nn.Module:
    width = width_of(data)
    return nn.Sequential(nn.Flatten(), Crossed(width), nn.LayerNorm(width + 24))


class Trees(nn.Module):
    """Trees of soft questions: a row reaches each leaf by degrees (Popov et al. 2020)."""

    def __init__(self, inputs: int, trees: int, depth: int, width: int) -> None:
        super().__init__()
        self.ask, self.trees = nn.Linear(inputs, trees * depth), trees
        self.leaves = nn.Parameter(torch.randn(trees, 2**depth, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        yes = (3 * self.ask(x)).sigmoid().unflatten(1, (self.trees, -1))
        ways = torch.ones_like(yes[:, :, :1])
        for share in yes.split(1, dim=2):
            ways = torch.cat([ways * share, ways * (1 - share)], 2)
        return torch.einsum("ntl,tlw->nw", ways, self.leaves) / self.trees**0.5


def _trees(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Trees(width_of(data), 16, 4, 24))


def _next(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:  # Liu et al. 2022
        body = [nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.GroupNorm(1, 16)]
        return Residual(nn.Sequential(*body, nn.Conv2d(16, 48, 1), nn.GELU(), nn.Conv2d(48, 16, 1)))

    first = [nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(1, 16)]
    last = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LayerNorm(64)]
    return nn.Sequential(*first, block(), nn.MaxPool2d(2), block(), *last)


class Grown(nn.Module):
    """Adds what a body makes of an image to it as further channels (Huang et al. 2017)."""

    def __init__(self, channels: int, more: int) -> None:
        super().__init__()
        body = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, more, 3, padding=1)]
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C + more, H, W] of [N, C, H, W]."""
        return torch.cat([x, self.body(x)], 1)


def _grown(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Conv2d(1, 8, 3, padding=1), Grown(8, 8), Grown(16, 8), nn.Conv2d(24, 12, 1)]
    then = [nn.AvgPool2d(2), Grown(12, 8), Grown(20, 8), nn.BatchNorm2d(28), nn.ReLU()]
    return nn.Sequential(*first, *then, nn.AdaptiveAvgPool2d(2), nn.Flatten())


class DownAndUp(nn.Module):
    """Looks at an image at half its size and puts that beside the image (Ronneberger 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(1, 10, 3, padding=1), nn.SiLU())
        self.coarse = nn.Sequential(nn.Conv2d(10, 20, 3, padding=1), nn.SiLU())
        self.both = nn.Sequential(nn.Conv2d(30, 16, 3, padding=1), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 16, H, W] of [N, 1, H, W]."""
        fine = self.fine(x)
        coarse = self.coarse(functional.max_pool2d(fine, 2))
        up = functional.interpolate(coarse, size=x.shape[2:], mode="nearest")
        return self.both(torch.cat([fine, up], 1))


def _down_and_up(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(DownAndUp(), nn.AdaptiveMaxPool2d(3), nn.Flatten())


class Capsules(nn.Module):
    """Small vectors that agree on larger ones in two rounds (Sabour et al. 2017)."""

    def __init__(self, incoming: int, size: int, outgoing: int = 8, width: int = 8) -> None:
        super().__init__()
        self.size = size
        weight = torch.randn(incoming, size, outgoing, width) / math.sqrt(size)
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outgoing, width] of [N, C, H, W]."""
        small = x.unflatten(1, (-1, self.size)).movedim(2, -1).flatten(1, -2)
        votes = torch.einsum("nis,isow->niow", _squashed(small), self.weight)
        out = _squashed(votes.sum(1) / math.sqrt(votes.shape[1]))
        agreed = (votes * out[:, None]).sum(-1, keepdim=True).softmax(2)
        return _squashed((agreed * votes).sum(1))


def _squashed(x: Tensor) -> Tensor:
    squares = x.square().sum(-1, keepdim=True)
    return x * squares / (1 + squares) * (squares + 1e-6).rsqrt()


def _capsules(data: Any, settings: dict[str, Any]) -> nn.Module:
    high, wide = ((size - 3) // 2 + 1 for size in data.x.shape[2:])
    first = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2)]
    return nn.Sequential(*first, Capsules(6 * high * wide, 4), nn.Flatten(), nn.LayerNorm(64))


class TokenFirst(nn.Module):
    """Cuts an image into squares, each a vector, behind a learnt one (Dosovitskiy et al. 2021)."""

    def __init__(self, squares: int, width: int, size: int) -> None:
        super().__init__()
        first = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU()]
        self.cut = nn.Sequential(*first, nn.Conv2d(12, width, size, stride=size))
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = Places(squares + 1, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 1 + squares, width] of [N, 1, H, W]."""
        squares = self.cut(x).flatten(2).transpose(1, 2)
        return self.places(torch.cat([self.token.expand(len(x), -1, -1), squares], 1))


class First(nn.Module):
    """The first place of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, T, F]."""
        return x[:, 0]


def _token_first(data: Any, settings: dict[str, Any]) -> nn.Module:
    high, wide = (size // 3 for size in data.x.shape[2:])
    blocks = (
        nn.TransformerEncoderLayer(24, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True)
        for _ in range(2)
    )
    return nn.Sequential(TokenFirst(high * wide, 24, 3), *blocks, First(), nn.LayerNorm(24))


SEEN_5_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "relu_groups_3": ("seen_5", ("table", "image"), perceptron(nn.ReLU, 3, 48, _groups)),
    "softplus_2": ("seen_5", ("table",), perceptron(nn.Softplus, 2, 40)),
    "maxout": ("seen_5", ("table",), _maxout),
    "radial": ("seen_5", ("table",), _radial),
    "splines": ("seen_5", ("table",), _splines),
    "sines": ("seen_5", ("table",), _sines),
    "residual_batchnorm": ("seen_5", ("table",), _residual_batchnorm),
    "crossed": ("seen_5", ("table",), _crossed),
    "trees": ("seen_5", ("table",), _trees),
    "cnn_next": ("seen_5", ("image",), _next),
    "cnn_batchnorm_grown": ("seen_5", ("image",), _grown),
    "cnn_down_and_up": ("seen_5", ("image",), _down_and_up),
    "capsules": ("seen_5", ("image",), _capsules),
    "token_first": ("seen_5", ("image",), _token_first),
    **SEEN_5_TIME_NETS,
}
