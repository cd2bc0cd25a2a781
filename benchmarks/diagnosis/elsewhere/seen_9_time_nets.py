"""The architectures for series and tokens of what was the report part of the ninth look."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Residual, Swap, embedded


class LastAndMean(nn.Module):
    """The last place of a sequence beside the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 F] of [N, T, F]."""
        return torch.cat([x[:, -1], x.mean(1)], 1)


def _inside(width: int, wide: int) -> nn.Module:
    layers = [nn.LayerNorm(width), nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width)]
    return Residual(nn.Sequential(*layers))


class Peepholes(nn.Module):
    """An LSTM by hand whose gates look at its cells (Gers & Schmidhuber 2000)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.given = nn.Linear(inputs, 4 * width)
        self.back = nn.Linear(width, 4 * width, bias=False)
        self.looks = nn.Parameter(torch.randn(3, width) / 4)
        nn.init.orthogonal_(self.back.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        given, states = self.given(x), []
        state = cell = given.new_zeros(len(x), self.looks.shape[1])
        for now in given.unbind(1):
            lets, keeps, tells, new = (now + self.back(state)).chunk(4, 1)
            keeps = (keeps + 1 + self.looks[0] * cell).sigmoid()
            lets = (lets + self.looks[1] * cell).sigmoid()
            cell = keeps * cell + lets * new.tanh()
            state = (tells + self.looks[2] * cell).sigmoid() * cell.tanh()
            states.append(state)
        return torch.stack(states, 1)


def _peepholes(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 20), Peepholes(20, 32), LastAndMean())


class DeltaRule(nn.Module):
    """A matrix as memory, which each place corrects where its key is (Schlag et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ask, self.rate = nn.Linear(width, 3 * width), nn.Linear(width, heads)
        self.near = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        x = x + self.near(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)
        parts = self.ask(x).unflatten(2, (3, self.heads, -1))
        key, question = (functional.normalize(parts[:, :, kind], dim=3) for kind in (0, 1))
        value, rate = parts[:, :, 2], self.rate(x).sigmoid()[:, :, :, None]
        memory, told = x.new_zeros(len(x), self.heads, key.shape[3], key.shape[3]), []
        for time in range(x.shape[1]):
            held = torch.einsum("nhk,nhkv->nhv", key[:, time], memory)
            wrong = rate[:, time] * (value[:, time] - held)
            memory = memory + key[:, time, :, :, None] * wrong[:, :, None, :]
            told.append(torch.einsum("nhk,nhkv->nhv", question[:, time], memory))
        out: Tensor = self.out(self.norm(torch.stack(told, 1).flatten(2)))
        return out


def _delta_rule(data: Any, settings: dict[str, Any]) -> nn.Module:
    block = Residual(nn.Sequential(nn.LayerNorm(24), DeltaRule(24, 2)))
    first = [*embedded(data, settings, 24), block, _inside(24, 48)]
    return nn.Sequential(*first, LastAndMean(), nn.LayerNorm(48))


class Biased(nn.Module):
    """Attention that likes or dislikes distances, as each head learns (Raffel et al. 2020)."""

    spans: Tensor

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        place = torch.arange(length)
        self.register_buffer("spans", place[:, None] - place + length - 1)
        slope = 2.0 ** -torch.arange(1, heads + 1)[:, None]
        self.likes = nn.Parameter(-slope * (torch.arange(2 * length - 1) - length + 1).abs())
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        parts = self.ask(x).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        question, key, value = parts.unbind(2)
        likes = self.likes[:, self.spans]
        seen = functional.scaled_dot_product_attention(question, key, value, likes)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return out


def _biased(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        seen = nn.Sequential(nn.LayerNorm(24), Biased(24, 3, data.x.shape[1]))
        return [Residual(seen), _inside(24, 48)]

    first = [*embedded(data, settings, 24), *block(), *block(), nn.LayerNorm(24), Swap()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool1d(3), nn.Flatten())


class Reservoir(nn.Module):
    """A recurrent net whose weights stay as they were drawn (Jaeger 2001)."""

    given: Tensor
    back: Tensor
    keeps: Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        back = torch.randn(width, width) * (torch.rand(width, width) < 0.2)
        self.register_buffer("given", torch.randn(inputs, width) / math.sqrt(inputs))
        self.register_buffer("back", 0.9 * back / torch.linalg.eigvals(back).abs().max())
        self.register_buffer("keeps", torch.linspace(0, 0.8, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        state, states = x.new_zeros(len(x), len(self.back)), []
        for now in x.unbind(1):
            new = (now @ self.given + state @ self.back).tanh()
            state = self.keeps * state + (1 - self.keeps) * new
            states.append(state)
        return torch.stack(states, 1)


class Thirds(nn.Module):
    """The last place of a sequence beside the mean of each third."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 4 F] of [N, T, F]."""
        thirds = functional.adaptive_avg_pool1d(x.transpose(1, 2), 3).flatten(1)
        return torch.cat([x[:, -1], thirds], 1)


def _reservoir(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 16), Reservoir(16, 64), Thirds(), nn.LayerNorm(256)]
    return nn.Sequential(*first, nn.Linear(256, 64), nn.ReLU())


class Light(nn.Module):
    """Convolutions whose weights add up to 1 and are shared by channels (Wu et al. 2019)."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.weights = nn.Parameter(torch.randn(heads, size))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        value = functional.glu(self.into(x), 2).transpose(1, 2)
        width, (heads, size) = value.shape[1], self.weights.shape
        weights = self.weights.softmax(1).repeat_interleave(width // heads, 0)[:, None]
        near = functional.conv1d(value, weights, padding=size // 2, groups=width)
        out: Tensor = self.out(near.transpose(1, 2))
        return out


def _light(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 32), Places(data.x.shape[1], 32)]
    for size in (3, 7):
        first += [Residual(nn.Sequential(nn.LayerNorm(32), Light(32, 8, size))), _inside(32, 64)]
    return nn.Sequential(*first, Thirds(), nn.LayerNorm(128))


class FewHighest(nn.Module):
    """The highest values over time of each channel, in their order (Kalchbrenner et al. 2014)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F, count] of [N, F, T]."""
        return x.gather(2, x.topk(self.count, 2).indices.sort(2).values)


def _few_highest(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [*embedded(data, settings, 16), Swap(), nn.Conv1d(16, 24, 3, padding="same")]
    layers += [FewHighest(6), nn.Tanh(), nn.Conv1d(24, 24, 3, padding="same"), FewHighest(3)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(72, 48), nn.ReLU())


class Legendre(nn.Module):
    """The last places of each channel as polynomials of Legendre's (Voelker et al. 2019)."""

    keeps: Tensor
    adds: Tensor

    def __init__(self, order: int, span: float) -> None:
        super().__init__()
        row = torch.arange(order)[:, None]
        column, size = row.T, (2.0 * row + 1) / span
        change = torch.where(row < column, -1.0, (-1.0) ** (row - column + 1)) * size
        both = torch.zeros(order + 1, order + 1)
        both[:order, :order], both[:order, order:] = change, (-1.0) ** row * size
        step = torch.linalg.matrix_exp(both)
        self.register_buffer("keeps", step[:order, :order])
        self.register_buffer("adds", step[:order, order])

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, F order] of [N, T, F]."""
        state, states = x.new_zeros(*x[:, 0].shape, len(self.adds)), []
        for now in x.unbind(1):
            state = state @ self.keeps.T + now[:, :, None] * self.adds
            states.append(state.flatten(1))
        return torch.stack(states, 1)


def _legendre(data: Any, settings: dict[str, Any]) -> nn.Module:
    memory = Legendre(8, data.x.shape[1] / 2)
    first = [*embedded(data, settings, 16), memory, nn.Linear(128, 64), nn.ReLU()]
    return nn.Sequential(*first, Thirds(), nn.LayerNorm(256))


def _concatenated(data: Any, settings: dict[str, Any]) -> nn.Module:
    """The vectors of all places in one row, and a wide layer (Bengio et al. 2003)."""
    layers = [*embedded(data, settings, 12), nn.Flatten()]
    layers += [nn.Linear(12 * data.x.shape[1], 64), nn.LayerNorm(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 48), nn.ReLU())


class Counted(nn.Module):
    """How often each symbol occurs, as logarithms, and in which half it does."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.symbols = symbols

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 symbols] of [N, T]."""
        seen = functional.one_hot(x, self.symbols).float()
        half = x.shape[1] // 2
        return torch.cat([seen[:, :half].sum(1), seen[:, half:].sum(1)], 1).log1p()


def _counted(data: Any, settings: dict[str, Any]) -> nn.Module:
    symbols = int(max(data.x.max(), data.val_x.max())) + 1
    layers = [Counted(symbols), nn.Linear(2 * symbols, 64), nn.LayerNorm(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 48), nn.ReLU())


SEEN_9_TIME_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "peepholes": ("seen_9", ("series", "tokens"), _peepholes),
    "delta_rule": ("seen_9", ("series", "tokens"), _delta_rule),
    "biased_attention": ("seen_9", ("series", "tokens"), _biased),
    "reservoir": ("seen_9", ("series", "tokens"), _reservoir),
    "light_convolutions": ("seen_9", ("series", "tokens"), _light),
    "few_highest": ("seen_9", ("series", "tokens"), _few_highest),
    "legendre": ("seen_9", ("series", "tokens"), _legendre),
    "concatenated": ("seen_9", ("series", "tokens"), _concatenated),
    "counted": ("seen_9", ("tokens",), _counted),
}
