"""The architectures of what was the report part of the seventh look; time in `seen_7_time_nets`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Residual, perceptron, width_of
from benchmarks.diagnosis.elsewhere.seen_7_time_nets import SEEN_7_TIME_NETS


class SquaredReLU(nn.Module):
    """The square of the positive part (So et al. 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return max(x, 0)^2."""
        return x.relu().square()


class Modulated(nn.Module):
    """Layers whose units one net scales and shifts by the row itself (Perez et al. 2018)."""

    def __init__(self, inputs: int, width: int, count: int = 2) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(inputs, 24), nn.ReLU())
        self.says = nn.ModuleList(nn.Linear(24, 2 * width) for _ in range(count))
        self.layers = nn.ModuleList(
            nn.Linear(width if number else inputs, width) for number in range(count)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, elementwise_affine=False) for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        known = self.condition(x)
        for layer, norm, says in zip(self.layers, self.norms, self.says, strict=True):
            scale, shift = says(known).chunk(2, 1)
            x = functional.relu(norm(layer(x)) * (1 + scale) + shift)
        return x


def _modulated(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Modulated(width_of(data), 40))


class Glances(nn.Module):
    """Looks at a few features at a time, which the last glance chose (Arik & Pfister 2021)."""

    def __init__(self, inputs: int, width: int, glances: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.start = nn.Linear(inputs, 2 * width)
        self.chooses = nn.ModuleList(nn.Linear(width, inputs) for _ in range(glances))
        self.shared = nn.Linear(inputs, 2 * width)
        self.own = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(glances))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        x = self.norm(x)
        told, left = functional.glu(self.start(x)), torch.ones_like(x)
        total = torch.zeros_like(told)
        for choose, own in zip(self.chooses, self.own, strict=True):
            seen = (choose(told) + left.clamp(min=1e-3).log()).softmax(1)
            left = left * (1.3 - seen)
            inside = functional.glu(self.shared(x.shape[1] * seen * x))
            said, told = functional.glu(own(inside)).chunk(2, 1)
            total = total + said.relu()
        return total


def _glances(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Glances(width_of(data), 20))


class FeatureGraph(nn.Module):
    """Features as the nodes of a graph whose edges are learnt (Wu et al. 2020)."""

    def __init__(self, nodes: int, width: int, rounds: int = 2) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(nodes, width) / 2)
        self.shift = nn.Parameter(torch.randn(nodes, width) / 2)
        self.sends = nn.Parameter(torch.randn(nodes, 8))
        self.takes = nn.Parameter(torch.randn(nodes, 8))
        self.keeps = nn.ModuleList(nn.Linear(width, width) for _ in range(rounds))
        self.hears = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(rounds))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, nodes width] of [N, nodes]."""
        edges = (self.takes @ self.sends.T / math.sqrt(8)).softmax(1)
        node = x[:, :, None] * self.scale + self.shift
        for keep, hear in zip(self.keeps, self.hears, strict=True):
            node = node + functional.relu(keep(node) + hear(edges @ node))
        return node.flatten(1)


def _feature_graph(data: Any, settings: dict[str, Any]) -> nn.Module:
    width = width_of(data)
    last = [nn.LayerNorm(12 * width), nn.Linear(12 * width, 32), nn.ReLU()]
    return nn.Sequential(FeatureGraph(width, 12), *last)


class Periodic(nn.Module):
    """Waves of learnt paces of each feature, and a layer of its own (Gorishniy et al. 2022)."""

    def __init__(self, inputs: int, waves: int, width: int) -> None:
        super().__init__()
        self.pace = nn.Parameter(0.3 * torch.randn(inputs, waves))
        self.weight = nn.Parameter(torch.randn(inputs, 2 * waves, width) / math.sqrt(2 * waves))
        self.bias = nn.Parameter(torch.zeros(inputs, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, inputs width] of [N, inputs]."""
        angle = 2 * math.pi * x[:, :, None] * self.pace
        waves = torch.cat([angle.cos(), angle.sin()], 2)
        made = torch.einsum("nfw,fwo->nfo", waves, self.weight) + self.bias
        return made.relu().flatten(1)


def _periodic(data: Any, settings: dict[str, Any]) -> nn.Module:
    width = width_of(data)
    last = [nn.Linear(6 * width, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU()]
    return nn.Sequential(Periodic(width, 8, 6), *last)


class Sometimes(nn.Module):
    """A residual block that is left out for some rows in training (Huang et al. 2016)."""

    def __init__(self, body: nn.Module, left_out: float) -> None:
        super().__init__()
        self.body, self.left_out = body, left_out

    def forward(self, x: Tensor) -> Tensor:
        """Return x, and what the body makes of it for the rows that it is asked for."""
        added: Tensor = self.body(x)
        if self.training:
            kept = torch.rand(len(x), 1, device=x.device) >= self.left_out
            added = added * kept / (1 - self.left_out)
        return x + added


def _sometimes(data: Any, settings: dict[str, Any]) -> nn.Module:
    def body() -> nn.Module:
        inside = [nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)]
        return nn.Sequential(*inside)

    blocks = (Sometimes(body(), left_out) for left_out in (0.0, 0.05, 0.1))
    first = [nn.Flatten(), nn.Linear(width_of(data), 32)]
    return nn.Sequential(*first, *blocks, nn.LayerNorm(32))


class Settled(nn.Module):
    """A state that one layer changes over and over, until it hardly does (Bai et al. 2019)."""

    def __init__(self, inputs: int, width: int, rounds: int = 10) -> None:
        super().__init__()
        self.into, self.again = nn.Linear(inputs, width), nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.again.weight, 0.7)
        self.rounds = rounds

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, inputs]."""
        given = self.into(x)
        state: Tensor = given.tanh()
        for _ in range(self.rounds):
            state = (self.again(state) + given).tanh()
        return state


def _settled(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Settled(width_of(data), 40), nn.Linear(40, 32), nn.ReLU())


class OnSphere(nn.Module):
    """Brings each row to one learnt length, as in face recognition (Wang et al. 2017)."""

    def __init__(self, length: float = 6.0) -> None:
        super().__init__()
        self.length = nn.Parameter(torch.tensor(length))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of [N, F]."""
        return self.length * functional.normalize(x)


def _on_sphere(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Linear(width_of(data), 64), nn.PReLU(), nn.Linear(64, 48), nn.PReLU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(48, 32), OnSphere())


def _inverted(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:  # Sandler et al. 2018
        body = [nn.Conv2d(12, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6()]
        body += [nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False), nn.BatchNorm2d(48)]
        body += [nn.ReLU6(), nn.Conv2d(48, 12, 1, bias=False), nn.BatchNorm2d(12)]
        return Residual(nn.Sequential(*body))

    first = [nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU6()]
    last = [nn.Conv2d(12, 32, 1), nn.BatchNorm2d(32), nn.ReLU6(), nn.AdaptiveAvgPool2d(3)]
    return nn.Sequential(*first, block(), block(), *last, nn.Flatten())


class Edges(nn.Module):
    """An image beside its edges, by the usual fixed filters: Sobel, Laplace and a blur."""

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
        spots = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]) / 2
        blur = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        self.register_buffer("filters", torch.stack([across, across.T, spots, blur])[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 5, H, W] of [N, 1, H, W]."""
        return torch.cat([x, functional.conv2d(x, self.filters, padding=1)], 1)


def _edges(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Edges(), nn.InstanceNorm2d(5), nn.Conv2d(5, 16, 3, padding=1), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.LayerNorm(216)]
    return nn.Sequential(*layers, nn.Linear(216, 40), nn.ReLU())


class MixedKernels(nn.Module):
    """A convolution whose filters each image mixes from a few (Yang et al. 2019)."""

    def __init__(self, before: int, after: int, count: int = 3) -> None:
        super().__init__()
        bodies = (nn.Conv2d(before, after, 3, padding=1) for _ in range(count))
        self.bodies, self.share = nn.ModuleList(bodies), nn.Linear(before, count)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, after, H, W] of [N, before, H, W]."""
        made = torch.stack([body(x) for body in self.bodies], 1)
        share: Tensor = self.share(x.mean((2, 3))).sigmoid()
        return (share[:, :, None, None, None] * made).sum(1)


def _mixed_kernels(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(1, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.SiLU(), nn.MaxPool2d(2)]
    layers += [MixedKernels(12, 24), nn.GroupNorm(4, 24), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())


class Blurred(nn.Module):
    """Halves an image after it was blurred, so that a shift changes little (Zhang 2019)."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", line.outer(line).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H / 2, W / 2] of [N, C, H, W]."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(padded, self.kernel, stride=2, groups=x.shape[1])


def _blurred(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 8), (8, 20)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
        layers += [nn.MaxPool2d(2, 1), Blurred(after)]
    high, wide = (size // 4 for size in data.x.shape[2:])
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(20 * high * wide, 40), nn.ReLU())


class Aligned(nn.Module):
    """Turns, shifts and stretches an image as a small net says (Jaderberg et al. 2015)."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 24), nn.Tanh())
        self.says = nn.Linear(24, 6)
        nn.init.zeros_(self.says.weight)
        with torch.no_grad():
            self.says.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 1, H, W] of [N, 1, H, W]."""
        turned = self.says(self.look(x)).unflatten(1, (2, 3))
        grid = functional.affine_grid(turned, list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _aligned(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(12, 20, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(3), nn.Flatten()]
    return nn.Sequential(Aligned(width_of(data)), *layers)


SEEN_7_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "relu6_3": ("seen_7", ("table", "image"), perceptron(nn.ReLU6, 3, 48)),
    "squared_relu_2": ("seen_7", ("table",), perceptron(SquaredReLU, 2, 40, nn.LayerNorm)),
    "modulated": ("seen_7", ("table",), _modulated),
    "batchnorm_glances": ("seen_7", ("table",), _glances),
    "feature_graph": ("seen_7", ("table",), _feature_graph),
    "periodic": ("seen_7", ("table",), _periodic),
    "sometimes": ("seen_7", ("table",), _sometimes),
    "settled": ("seen_7", ("table",), _settled),
    "on_sphere": ("seen_7", ("table", "image"), _on_sphere),
    "cnn_batchnorm_inverted": ("seen_7", ("image",), _inverted),
    "cnn_edges": ("seen_7", ("image",), _edges),
    "cnn_mixed_kernels": ("seen_7", ("image",), _mixed_kernels),
    "cnn_blurred": ("seen_7", ("image",), _blurred),
    "cnn_aligned": ("seen_7", ("image",), _aligned),
    **SEEN_7_TIME_NETS,
}
