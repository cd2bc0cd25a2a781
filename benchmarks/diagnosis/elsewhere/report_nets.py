"""The architectures of the report part: those of series and tokens in `report_time_nets.py`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, perceptron, width_of
from benchmarks.diagnosis.elsewhere.report_time_nets import REPORT_TIME_NETS


class Logish(nn.Module):
    """x times the logarithm of one and a sigmoid (Zhu et al. 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x ln(1 + sigmoid(x))."""
        return x * x.sigmoid().log1p()


class Rational(nn.Module):
    """A learnt polynomial over another, at first nearly a leaky ReLU (Molina et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        above = (0.02996348, 0.61690165, 2.37539147, 3.06608078, 1.52474449, 0.25281987)
        below = (1.19160814, 4.40811795, 0.91111034, 0.34885983)
        self.above = nn.Parameter(torch.tensor(above))
        self.below = nn.Parameter(torch.tensor(below))

    def forward(self, x: Tensor) -> Tensor:
        """Return P(x) / (1 + |Q(x)|)."""
        powers = torch.stack([x**power for power in range(6)], -1)
        return powers @ self.above / (1 + (powers[..., 1:5] @ self.below).abs())


class Quaternions(nn.Module):
    """A layer of Hamilton products: a quarter of the weights (Gaudet and Maida 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter = width // 4
        self.parts = nn.Parameter(torch.randn(4, quarter, quarter) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, width]."""
        r, i, j, k = self.parts
        rows = ((r, -i, -j, -k), (i, r, -k, j), (j, k, r, -i), (k, -j, i, r))
        weight = torch.cat([torch.cat(row, 1) for row in rows])
        return functional.linear(x, weight, self.bias)


def _quaternions(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(width_of(data), 64)]
    for _ in range(2):
        layers += [nn.LayerNorm(64), nn.ReLU(), Quaternions(64)]
    return nn.Sequential(*layers, nn.LayerNorm(64), nn.ReLU())


class Kronecker(nn.Module):
    """A sum of four Kronecker products of small matrices (Zhang et al. 2021)."""

    def __init__(self, side: int, terms: int) -> None:
        super().__init__()
        self.side = side
        self.left = nn.Parameter(torch.randn(terms, side, side) / side**0.5)
        self.right = nn.Parameter(torch.randn(terms, side, side) / (side * terms) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(side * side))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, side²] of [N, side²]."""
        square = x.view(-1, 1, self.side, self.side)
        return (self.left @ square @ self.right).sum(1).flatten(1) + self.bias


def _kronecker(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(width_of(data), 64), nn.LayerNorm(64)]
    for _ in range(2):
        layers += [nn.SiLU(), Kronecker(8, 4), nn.LayerNorm(64)]
    return nn.Sequential(*layers, nn.SiLU())


class Reflections(nn.Module):
    """Mirrors rows in some learnt planes one after the other (Mhammedi et al. 2017)."""

    def __init__(self, width: int, planes: int) -> None:
        super().__init__()
        self.normals = nn.Parameter(torch.randn(planes, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, width], as long as before but for the bias."""
        for normal in functional.normalize(self.normals, dim=1):
            x = x - 2 * (x @ normal)[:, None] * normal
        return x + self.bias


def _reflections(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(width_of(data), 64), nn.LayerNorm(64)]
    for _ in range(3):
        layers += [nn.LeakyReLU(0.2), Reflections(64, 8)]
    return nn.Sequential(*layers, nn.LayerNorm(64), nn.LeakyReLU(0.2))


class Arithmetic(nn.Module):
    """Sums of features beside products of their sizes, by weights from -1 to 1 (Trask 2018)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.signs = nn.Parameter(0.5 * torch.randn(2 * width, inputs))
        self.sizes = nn.Parameter(0.5 * torch.randn(2 * width, inputs))
        self.bias = nn.Parameter(torch.zeros(2 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 width] of [N, inputs]."""
        adds, multiplies = (self.signs.tanh() * self.sizes.sigmoid()).chunk(2)
        products = (x.abs().add(0.05).log() @ multiplies.T).clamp(-4, 3).exp()
        return torch.cat([x @ adds.T, products], 1) + self.bias


def _arithmetic(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), Arithmetic(width_of(data), 40), nn.LayerNorm(80)]
    return nn.Sequential(*first, nn.Linear(80, 48), nn.GELU())


class HalfSpaces(nn.Module):
    """Each unit has four weights and takes those of the quarter where the row lies (Veness 2019).

    The two planes of each unit that cut the space are drawn once and not learnt.
    """

    planes: Tensor
    shifts: Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.register_buffer("planes", torch.randn(inputs, 2 * width) / inputs**0.5)
        self.register_buffer("shifts", 0.5 * torch.randn(2 * width))
        self.layer = nn.Linear(inputs, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        sides = (x @ self.planes > self.shifts).long().unflatten(1, (-1, 2))
        which = 2 * sides[:, :, 0] + sides[:, :, 1]
        taken: Tensor = self.layer(x).unflatten(1, (-1, 4)).gather(2, which[:, :, None])
        return taken[:, :, 0]


def _half_spaces(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), HalfSpaces(width_of(data), 48), nn.LayerNorm(48)]
    return nn.Sequential(*first, HalfSpaces(48, 48), nn.LayerNorm(48))


class Dendrites(nn.Module):
    """Units with four branches; a branch sees half of the inputs and has a curve of its own."""

    seen: Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branches = nn.Linear(inputs, 4 * width)
        self.register_buffer("seen", 1.4 * (torch.rand(4 * width, inputs) < 0.5))
        self.weights = nn.Parameter(torch.randn(width, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        told = functional.linear(x, self.branches.weight * self.seen, self.branches.bias)
        branches: Tensor = functional.leaky_relu(told, 0.1).unflatten(1, (-1, 4))
        return (branches * self.weights).sum(2)


def _dendrites(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), Dendrites(width_of(data), 48), nn.LayerNorm(48)]
    return nn.Sequential(*first, Dendrites(48, 48), nn.LayerNorm(48), nn.ReLU())


class SparseCodes(nn.Module):
    """Seeks a code of few numbers in three learnt rounds (Gregor and LeCun 2010)."""

    def __init__(self, inputs: int, width: int, rounds: int) -> None:
        super().__init__()
        self.given, self.again = nn.Linear(inputs, width), nn.Linear(width, width, bias=False)
        self.limits = nn.Parameter(torch.full((rounds, width), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]; what is smaller than its limit is 0."""
        given = self.given(x)
        code = torch.zeros_like(given)
        for limit in self.limits:
            wanted = given + self.again(code)
            code = wanted.sign() * (wanted.abs() - limit).relu()
        return code


def _sparse_codes(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [nn.Flatten(), SparseCodes(width_of(data), 96, 3), nn.LayerNorm(96)]
    return nn.Sequential(*first, nn.Linear(96, 48), nn.ReLU())


class Gabors(nn.Module):
    """Convolutions by waves under a bell: their turn, pace, phase and breadth are learnt."""

    where: Tensor

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        at = torch.arange(size) - size // 2
        self.register_buffer("where", torch.stack(torch.meshgrid(at, at, indexing="ij")).float())
        self.turns = nn.Parameter(torch.arange(count) * math.pi / count)
        self.paces = nn.Parameter(torch.empty(count).uniform_(0.2, 2))
        self.phases = nn.Parameter(torch.empty(count).uniform_(0, 2 * math.pi))
        self.breadths = nn.Parameter(torch.full((count,), 0.5))
        self.bias = nn.Parameter(torch.zeros(count))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, count, H, W] of [N, 1, H, W]."""
        turns, paces, phases, breadths = (
            each[:, None, None] for each in (self.turns, self.paces, self.phases, self.breadths)
        )
        along = turns.cos() * self.where[0] + turns.sin() * self.where[1]
        bell = (-self.where.square().sum(0) * breadths.square()).exp()
        kernels = (bell * (paces * along + phases).cos())[:, None]
        return functional.conv2d(x, kernels, self.bias, padding=self.where.shape[1] // 2)


def _gabors(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Gabors(16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, padding=1)]
    return nn.Sequential(
        *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.LayerNorm(216)
    )


class Selective(nn.Module):
    """Small and wide kernels; each channel of an image chooses between them (Li et al. 2019)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.ways = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=size, dilation=size, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for size in (1, 2)
        )
        self.says = nn.Sequential(nn.Linear(after, 8), nn.ReLU(), nn.Linear(8, 2 * after))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, after, H, W] of [N, before, H, W]."""
        told = torch.stack([way(x) for way in self.ways], 1)
        shares = self.says(told.sum(1).mean((2, 3))).unflatten(1, (2, -1)).softmax(1)
        chosen: Tensor = (told * shares[:, :, :, None, None]).sum(1)
        return chosen


def _selective(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Selective(1, 12), nn.MaxPool2d(2), Selective(12, 24), nn.AdaptiveAvgPool2d(3)]
    return nn.Sequential(*layers, nn.Flatten())


class MixedByImage(nn.Module):
    """Convolutions whose kernels each image mixes of four (Yang et al. 2019)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.kernels = nn.Conv2d(before, 4 * after, 3, padding=1)
        self.says = nn.Linear(2 * before, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, after, H, W] of [N, before, H, W]."""
        shares = self.says(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)).softmax(1)
        told = self.kernels(x).unflatten(1, (4, -1))
        mixed: Tensor = 2 * (told * shares[:, :, None, None, None]).sum(1)
        return mixed


def _mixed_by_image(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, 12, 3, padding=1), nn.GELU()]
    layers += [MixedByImage(12, 20), nn.GroupNorm(4, 20), nn.GELU(), nn.MaxPool2d(2)]
    layers += [MixedByImage(20, 24), nn.GroupNorm(4, 24), nn.GELU(), nn.AdaptiveMaxPool2d(3)]
    return nn.Sequential(*layers, nn.Flatten())


class Moved(nn.Module):
    """Moves each ninth of the channels by one place, each to another side (Wu et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] of [N, C, H, W]."""
        wide, (rows, columns) = functional.pad(x, (1, 1, 1, 1)), x.shape[2:]
        parts = [
            part[:, :, way // 3 : way // 3 + rows, way % 3 : way % 3 + columns]
            for way, part in enumerate(wide.chunk(9, 1))
        ]
        return torch.cat(parts, 1)


def _moved(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, 18, 1)]
    for before, after in ((18, 36), (36, 36), (36, 36)):
        layers += [Moved(), nn.Conv2d(before, after, 1), nn.GroupNorm(4, after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if before == 18 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())


class VisualWords(nn.Module):
    """How often each of some learnt words occurs in the patches of each part of an image."""

    def __init__(self, width: int, words: int, parts: int) -> None:
        super().__init__()
        self.sees = nn.Conv2d(1, width, 5, padding=2)
        self.words, self.parts = nn.Parameter(torch.randn(words, width, 1, 1)), parts

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, words parts²] of [N, 1, H, W]."""
        seen = functional.normalize(self.sees(x), dim=1, eps=1e-3)
        liked = functional.conv2d(seen, functional.normalize(self.words, dim=1))
        return functional.adaptive_avg_pool2d((8 * liked).softmax(1), self.parts).flatten(1)


def _visual_words(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [VisualWords(24, 32, 4), nn.LayerNorm(512), nn.Linear(512, 64), nn.LayerNorm(64)]
    return nn.Sequential(*first, nn.ReLU())


REPORT_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "logish_3": ("report", ("table", "image"), perceptron(Logish, 3, 48, nn.LayerNorm)),
    "rational_2": ("report", ("table",), perceptron(Rational, 2, 56, nn.LayerNorm)),
    "quaternions": ("report", ("table",), _quaternions),
    "kronecker": ("report", ("table",), _kronecker),
    "reflections": ("report", ("table",), _reflections),
    "arithmetic": ("report", ("table",), _arithmetic),
    "half_spaces": ("report", ("table",), _half_spaces),
    "dendrites": ("report", ("table", "image"), _dendrites),
    "sparse_codes": ("report", ("table",), _sparse_codes),
    "cnn_gabors": ("report", ("image",), _gabors),
    "cnn_batchnorm_selective": ("report", ("image",), _selective),
    "cnn_mixed_by_image": ("report", ("image",), _mixed_by_image),
    "cnn_moved": ("report", ("image",), _moved),
    "visual_words": ("report", ("image",), _visual_words),
    **REPORT_TIME_NETS,
}
