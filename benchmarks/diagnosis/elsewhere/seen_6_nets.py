"""The architectures of what was the report part of the sixth look; time: `seen_6_time_nets.py`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Residual, perceptron, width_of
from benchmarks.diagnosis.elsewhere.seen_6_time_nets import SEEN_6_TIME_NETS


class Snake(nn.Module):
    """An activation that rises in waves (Ziyin et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x + sin(x)^2."""
        return x + x.sin().square()


class BothSigns(nn.Module):
    """The positive and the negative part of each unit, side by side (Shang et al. 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 F] of [N, F]."""
        return functional.relu(torch.cat([x, -x], 1))


def _both_signs(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(width_of(data), 28), BothSigns()]
    return nn.Sequential(*first, nn.Linear(56, 20), BothSigns())


class Factors(nn.Module):
    """Products of pairs of features by vectors of each, beside a small net (Guo et al. 2017)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(inputs, width) / math.sqrt(inputs))
        self.deep = nn.Sequential(nn.Linear(inputs, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, inputs + width + 32] of [N, inputs]."""
        of_sum, of_each = (x @ self.vectors).square(), x.square() @ self.vectors.square()
        return torch.cat([x, (of_sum - of_each) / 2, self.deep(x)], 1)


def _factors(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Factors(width_of(data), 12))


class OwnNets(nn.Module):
    """A small net for each feature (Agarwal et al. 2021), whose outputs stand side by side."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, outputs))
            for _ in range(inputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, inputs outputs] of [N, inputs]."""
        columns = x.split(1, dim=1)
        return torch.cat([net(c) for net, c in zip(self.nets, columns, strict=True)], 1)


def _own_nets(data: Any, settings: dict[str, Any]) -> nn.Module:
    width = width_of(data)
    last = [nn.Linear(4 * width, 40), nn.GELU()]
    return nn.Sequential(OwnNets(width, 12, 4), nn.LayerNorm(4 * width), *last)


class Bins(nn.Module):
    """How far each feature has gone through each of its quantiles (Gorishniy et al. 2022)."""

    edges: Tensor

    def __init__(self, x: Tensor, count: int) -> None:
        super().__init__()
        edges = x.quantile(torch.linspace(0, 1, count + 1), dim=0).T
        self.register_buffer("edges", edges.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F count] of [N, F]."""
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        gone = (x[:, :, None] - low) / (high - low).clamp(min=1e-3)
        return gone.clamp(0, 1).flatten(1)


def _bins(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Linear(8 * width_of(data), 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU()]
    return nn.Sequential(Bins(data.x, 8), *layers)


class Coupled(nn.Module):
    """Two halves that are added to in turn, so that it can be undone (Gomez et al. 2017)."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.first, self.second = self.body(half), self.body(half)

    @staticmethod
    def body(half: int) -> nn.Module:
        """Return what is added."""
        return nn.Sequential(
            nn.LayerNorm(half), nn.Linear(half, 32), nn.SiLU(), nn.Linear(32, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 half] of [N, 2 half]."""
        left, right = x.chunk(2, 1)
        left = left + self.first(right)
        return torch.cat([left, right + self.second(left)], 1)


def _coupled(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(width_of(data), 40)]
    return nn.Sequential(*first, Coupled(20), Coupled(20), nn.LayerNorm(40))


class Flow(nn.Module):
    """A differential equation whose slope is learnt, in eight steps (Chen et al. 2018)."""

    def __init__(self, width: int, steps: int = 8) -> None:
        super().__init__()
        self.slope = nn.Sequential(nn.Linear(width + 1, 48), nn.Tanh(), nn.Linear(48, width))
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, width]."""
        for step in range(self.steps):
            time = x.new_full((len(x), 1), step / self.steps)
            x = x + self.slope(torch.cat([x, time], 1)) / self.steps
        return x


def _flow(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(width_of(data), 24), Flow(24), nn.LayerNorm(24))


class Shared(nn.Module):
    """One linear layer for several members, each of which scales it (Wen et al. 2020)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.before = nn.Parameter(1 + 0.5 * torch.randn(members, inputs))
        self.after = nn.Parameter(1 + 0.5 * torch.randn(members, outputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, members, outputs] of [N, members, inputs]."""
        return self.linear(x * self.before) * self.after + self.bias


class Ensemble(nn.Module):
    """Members that share their weights, and the mean of what they say."""

    def __init__(self, inputs: int, members: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Shared(members, inputs, 40), Shared(members, 40, 32)])
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 32] of [N, inputs]."""
        x = x[:, None].expand(-1, self.members, -1)
        for layer in self.layers:
            x = layer(x).relu()
        return x.mean(1)


def _ensemble(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Ensemble(width_of(data)), nn.LayerNorm(32))


def _shuffled(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:  # Zhang et al. 2018
        body = [nn.Conv2d(24, 24, 1, groups=3), nn.BatchNorm2d(24), nn.ReLU(), nn.ChannelShuffle(3)]
        body += [nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24)]
        return Residual(nn.Sequential(*body, nn.Conv2d(24, 24, 1, groups=3), nn.BatchNorm2d(24)))

    first = [nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2)]
    layers = [block(), nn.ReLU(), block(), nn.ReLU()]
    return nn.Sequential(*first, *layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())


class ReadRows(nn.Module):
    """Reads the rows of channels from top to bottom (Shi et al. 2017)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, width, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 width] of [N, C, H, W]."""
        return self.gru(x.movedim(2, 1).flatten(2))[0].mean(1)


def _read_rows(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d((1, 2))]
    return nn.Sequential(*first, ReadRows(12 * (data.x.shape[3] // 2), 24))


class Attended(nn.Module):
    """Weights places of an image by what its channels say there (Woo et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Conv2d(2, 1, 5, padding=2), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] of [N, C, H, W]."""
        return x * self.weigh(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))


def _attended(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.LeakyReLU(0.1), Attended(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 32, 3, padding=1), nn.LeakyReLU(0.1), Attended()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(2), nn.Flatten())


class PoolMixer(nn.Module):
    """Mixes places by nothing but their mean (Yu et al. 2022)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] of [N, C, H, W]."""
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x


def _pool_former(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        mixed = nn.Sequential(nn.GroupNorm(1, 24), PoolMixer())
        inside = [nn.GroupNorm(1, 24), nn.Conv2d(24, 48, 1), nn.GELU(), nn.Conv2d(48, 24, 1)]
        return [Residual(mixed), Residual(nn.Sequential(*inside))]

    layers = [nn.Conv2d(1, 24, 3, stride=2, padding=1), *block(), *block(), nn.GroupNorm(1, 24)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())


class Pyramid(nn.Module):
    """The highest values of all of an image, of its quarters and its ninths (He et al. 2015)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 14 C] of [N, C, H, W]."""
        return torch.cat([functional.adaptive_max_pool2d(x, n).flatten(1) for n in (1, 2, 3)], 1)


def _pyramid(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(1, 12, 3, padding=1), nn.CELU(), nn.Conv2d(12, 20, 3, padding=1), nn.CELU()]
    return nn.Sequential(*layers, Pyramid(), nn.Linear(280, 40), nn.CELU())


SEEN_6_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "celu_3": ("seen_6", ("table", "image"), perceptron(nn.CELU, 3, 40)),
    "snake_2": ("seen_6", ("table",), perceptron(Snake, 2, 40)),
    "both_signs": ("seen_6", ("table",), _both_signs),
    "factors": ("seen_6", ("table",), _factors),
    "own_nets": ("seen_6", ("table",), _own_nets),
    "bins": ("seen_6", ("table",), _bins),
    "coupled": ("seen_6", ("table", "image"), _coupled),
    "flow": ("seen_6", ("table",), _flow),
    "ensemble": ("seen_6", ("table",), _ensemble),
    "cnn_batchnorm_shuffled": ("seen_6", ("image",), _shuffled),
    "cnn_read_rows": ("seen_6", ("image",), _read_rows),
    "cnn_attended": ("seen_6", ("image",), _attended),
    "pool_former": ("seen_6", ("image",), _pool_former),
    "cnn_pyramid": ("seen_6", ("image",), _pyramid),
    **SEEN_6_TIME_NETS,
}
