"""The architectures for series and tokens of what was the report part of the eleventh look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Residual, Swap, embedded


class Summed(nn.Module):
    """The last place of a sequence beside its mean and its highest values."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 3 F] of [N, T, F]."""
        return torch.cat([x[:, -1], x.mean(1), x.amax(1)], 1)


class ClosedForm(nn.Module):
    """States that go from one target to another, at a pace of their own (Hasani et al. 2022)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.sees = nn.Linear(inputs + width, 2 * width)
        self.parts = nn.Linear(2 * width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        state, states = x.new_zeros(len(x), self.parts.out_features // 3), []
        for now in x.unbind(1):
            seen = 1.7 * (0.67 * self.sees(torch.cat([now, state], 1))).tanh()
            one, other, pace = self.parts(seen).chunk(3, 1)
            gate = pace.sigmoid()
            state = one.tanh() * (1 - gate) + other.tanh() * gate
            states.append(state)
        return torch.stack(states, 1)


def _closed_form(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 16), ClosedForm(16, 32), Summed()]
    return nn.Sequential(*first, nn.LayerNorm(96))


class MultiplicativeLSTM(nn.Module):
    """An LSTM whose gates see the input times the state (Krause et al. 2016)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.given, self.before = nn.Linear(inputs, width), nn.Linear(width, width)
        self.gates, self.mixed = nn.Linear(inputs, 4 * width), nn.Linear(width, 4 * width)
        with torch.no_grad():
            self.gates.bias[:width] += 1

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        given, gates, states = self.given(x), self.gates(x), []
        state = cell = torch.zeros_like(given[:, 0])
        for now, gate in zip(given.unbind(1), gates.unbind(1), strict=True):
            parts = gate + self.mixed(now * self.before(state))
            keep, take, show, new = parts.chunk(4, 1)
            cell = keep.sigmoid() * cell + take.sigmoid() * new.tanh()
            state = show.sigmoid() * cell.tanh()
            states.append(state)
        return torch.stack(states, 1)


def _multiplicative(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 20), MultiplicativeLSTM(20, 32), Summed())


class EvenAndOdd(nn.Module):
    """Every other place scales and shifts those between, and the other way (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sees = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv1d(width, width, 1)
            )
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width, T] of [N, width, T], even places before odd ones."""
        even, odd = x[:, :, ::2], x[:, :, 1::2]
        odd = functional.pad(odd, (0, even.shape[2] - odd.shape[2]))
        scales, shifts = self.sees[:2], self.sees[2:]
        even, odd = even * scales[0](odd).tanh().exp(), odd * scales[1](even).tanh().exp()
        even, odd = even + shifts[0](odd), odd - shifts[1](even)
        return torch.cat([even, odd], 2)


def _even_and_odd(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 32), Places(data.x.shape[1], 32), Swap()]
    layers = [nn.GroupNorm(4, 32), EvenAndOdd(32), nn.GroupNorm(4, 32), EvenAndOdd(32)]
    return nn.Sequential(*first, *layers, nn.AdaptiveMaxPool1d(8), nn.Flatten(), nn.LayerNorm(256))


def _thinks(width: int, wide: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, 4, wide, 0.0, functional.gelu, batch_first=True, norm_first=True
    )


def _inverted(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Each channel over all time is one token (Liu et al. 2024)."""
    first = [*embedded(data, settings, 20), Swap(), nn.Linear(data.x.shape[1], 32)]
    first += [Places(20, 32), _thinks(32, 64), nn.LayerNorm(32), nn.Linear(32, 12), nn.GELU()]
    return nn.Sequential(*first, nn.Flatten(), nn.LayerNorm(240))


class Shifted(nn.Module):
    """A mean of the past with weights that fade, channel by channel (Peng et al. 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(3, width))
        self.keys, self.values = nn.Linear(width, width), nn.Linear(width, width)
        self.receives, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.fades = nn.Parameter(torch.linspace(-5, 1, width))
        self.now = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        before = functional.pad(x, (0, 0, 1, -1))
        mixed = [x * mix + before * (1 - mix) for mix in self.mix]
        keys, values = self.keys(mixed[0]).clamp(max=20), self.values(mixed[1])
        place = torch.arange(x.shape[1], device=x.device)
        since = (place[:, None] - place)[:, :, None]
        bias = torch.where(since == 0, self.now, -(since - 1) * self.fades.exp())
        bias = bias.masked_fill(since < 0, -torch.inf)
        weights = (keys[:, None] + bias).softmax(2)
        told = torch.einsum("ntsc,nsc->ntc", weights, values)
        out: Tensor = self.out(self.receives(mixed[2]).sigmoid() * told)
        return out


class ChannelMix(nn.Module):
    """What a place makes of itself and of the one before it, by squares of a ReLU."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(width))
        self.up, self.down = nn.Linear(width, wide), nn.Linear(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        mixed = x * self.mix + functional.pad(x, (0, 0, 1, -1)) * (1 - self.mix)
        out: Tensor = self.down(self.up(mixed).relu().square())
        return out


def _shifted(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [*embedded(data, settings, 24), nn.LayerNorm(24)]
    for _ in range(2):
        for body in (Shifted(24), ChannelMix(24, 48)):
            layers += [Residual(nn.Sequential(nn.LayerNorm(24), body))]
    return nn.Sequential(*layers, Summed(), nn.LayerNorm(72))


class Slots(nn.Module):
    """Some vectors that share out the places among them, round by round (Locatello 2020)."""

    def __init__(self, width: int, count: int, rounds: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(count, width))
        self.norm, self.slot_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asks, self.keys = nn.Linear(width, width), nn.Linear(width, width)
        self.values, self.cell = nn.Linear(width, width), nn.GRUCell(width, width)
        self.rounds = rounds

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, count width] of [N, T, width]."""
        x = self.norm(x)
        keys, values = self.keys(x), self.values(x)
        slots = self.first.expand(len(x), -1, -1)
        for _ in range(self.rounds):
            liked = self.asks(self.slot_norm(slots)) @ keys.transpose(1, 2) / x.shape[2] ** 0.5
            shares = liked.softmax(1) + 1e-6
            found = shares / shares.sum(2, keepdim=True) @ values
            slots = self.cell(found.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        return slots.flatten(1)


def _slots(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 24), Places(data.x.shape[1], 24)]
    inner = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 24))
    return nn.Sequential(*first, Residual(inner), Slots(24, 5, 2), nn.LayerNorm(120))


class Tree(nn.Module):
    """Joins neighbours by a gated cell, level by level, until one is left (Cho et al. 2014)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.new, self.gates = nn.Linear(2 * width, width), nn.Linear(2 * width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the root, the mean and the highest of the leaves [N, 3 width] of [N, T, width]."""
        level = x
        while level.shape[1] > 1:
            if level.shape[1] % 2:
                level = functional.pad(level, (0, 0, 0, 1))
            pairs = level.unflatten(1, (-1, 2))
            both = pairs.flatten(2)
            shares = self.gates(both).unflatten(2, (3, -1)).softmax(2)
            parts = torch.cat([self.new(both).tanh()[:, :, None], pairs], 2)
            level = (shares * parts).sum(2)
        return torch.cat([level[:, 0], x.mean(1), x.amax(1)], 1)


def _tree(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 32), Swap(), nn.Conv1d(32, 32, 3, padding=1), Swap()]
    return nn.Sequential(*first, nn.LayerNorm(32), Tree(32), nn.LayerNorm(96))


class SqueezedTime(nn.Module):
    """Multiplies each channel by how much it matters in this row, as its means say."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        layers = [nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels)]
        self.says = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, T] of [N, C, T]."""
        weighed: Tensor = x * self.says(x.mean(2))[:, :, None]
        return weighed


def _squeezed(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Convolutions over time with weighted channels (Karim et al. 2019)."""
    layers = [*embedded(data, settings, 16), Swap()]
    for before, after, size in ((16, 32, 7), (32, 32, 5), (32, 32, 3)):
        layers += [nn.Conv1d(before, after, size, padding=size // 2), nn.BatchNorm1d(after)]
        layers += [nn.ReLU(), SqueezedTime(after, 8)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(3), nn.Flatten())


class PlacedWords(nn.Module):
    """The sum of the words' vectors, each times a learnt vector of its place (Sukhbaatar 2015)."""

    def __init__(self, symbols: int, length: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(symbols, width)
        self.places = nn.Parameter(1 + 0.5 * torch.randn(length, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, T]."""
        return (self.vectors(x) * self.places).sum(1) / x.shape[1] ** 0.5


def _placed(data: Any, settings: dict[str, Any]) -> nn.Module:
    symbols = int(max(data.x.max(), data.val_x.max())) + 1
    first = PlacedWords(symbols, data.x.shape[1], 64)
    return nn.Sequential(first, nn.LayerNorm(64), nn.Linear(64, 64), nn.ReLU())


SEEN_11_TIME_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "closed_form": ("seen_11", ("series", "tokens"), _closed_form),
    "multiplicative_lstm": ("seen_11", ("series", "tokens"), _multiplicative),
    "even_and_odd": ("seen_11", ("series", "tokens"), _even_and_odd),
    "inverted": ("seen_11", ("series", "tokens"), _inverted),
    "shifted_mixing": ("seen_11", ("series", "tokens"), _shifted),
    "slots": ("seen_11", ("series", "tokens"), _slots),
    "tree_over_time": ("seen_11", ("series", "tokens"), _tree),
    "batchnorm_squeezed_time": ("seen_11", ("series", "tokens"), _squeezed),
    "placed_words": ("seen_11", ("tokens",), _placed),
}
