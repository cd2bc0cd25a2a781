"""The architectures of the report part for series and tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Swap, embedded


class Ends(nn.Module):
    """The last place of a sequence beside its mean and its highest values."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 3 F] of [N, T, F]."""
        return torch.cat([x[:, -1], x.mean(1), x.amax(1)], 1)


class Rotating(nn.Module):
    """A state whose pairs of units are turned by angles that the input says (Dangovski 2019)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.angles, self.new = nn.Linear(inputs, width // 2), nn.Linear(inputs, width)
        self.keeps = nn.Linear(inputs + width, width)
        with torch.no_grad():
            self.keeps.bias[:] += 1

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        angles, news, states = self.angles(x), self.new(x).relu(), []
        state = torch.zeros_like(news[:, 0])
        for now, angle, new in zip(x.unbind(1), angles.unbind(1), news.unbind(1), strict=True):
            one, other = state.chunk(2, 1)
            cos, sin = angle.cos(), angle.sin()
            turned = torch.cat([cos * one - sin * other, sin * one + cos * other], 1)
            keep = self.keeps(torch.cat([now, state], 1)).sigmoid()
            state = keep * turned + (1 - keep) * new
            states.append(state)
        return torch.stack(states, 1)


def _rotating(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 20), nn.LayerNorm(20), Rotating(20, 32), Ends()]
    return nn.Sequential(*first, nn.LayerNorm(96))


class PhasedLSTM(nn.Module):
    """An LSTM whose units open and close by clocks of their own (Neil et al. 2016)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(inputs, width)
        self.periods = nn.Parameter(torch.empty(width).uniform_(0, 2))
        self.shifts = nn.Parameter(torch.empty(width).uniform_(0, 4))
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        state = cell = x.new_zeros(len(x), self.width)
        states = []
        for step, now in enumerate(x.unbind(1)):
            period = self.periods.exp()
            phase = (step - self.shifts).remainder(period) / period
            is_open = torch.where(phase < 0.3, phase / 0.3, (0.6 - phase) / 0.3)
            is_open = torch.maximum(is_open, 0.1 * phase)
            new_state, new_cell = self.cell(now, (state, cell))
            state = is_open * new_state + (1 - is_open) * state
            cell = is_open * new_cell + (1 - is_open) * cell
            states.append(state)
        return torch.stack(states, 1)


def _phased(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 20), PhasedLSTM(20, 36), Ends()]
    return nn.Sequential(*first, nn.LayerNorm(108))


class GlobalAndLocal(nn.Module):
    """Places that see their two neighbours on both sides, and one that sees all (Beltagy 2020)."""

    hidden: Tensor

    def __init__(self, length: int, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Parameter(0.1 * torch.randn(width))
        place = torch.arange(length + 1)
        hidden = (place[:, None] - place).abs() > 2
        hidden[0], hidden[:, 0] = False, False
        self.register_buffer("hidden", hidden)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, 0.0, functional.gelu, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the place that sees all beside the highest, [N, 2 width] of [N, T, width]."""
        x = torch.cat([self.first.expand(len(x), 1, -1), x], 1)
        for layer in self.layers:
            x = layer(x, src_mask=self.hidden)
        return torch.cat([x[:, 0], x[:, 1:].amax(1)], 1)


def _global_and_local(data: Any, settings: dict[str, Any]) -> nn.Module:
    length = data.x.shape[1]
    first = [*embedded(data, settings, 24), Places(length, 24), GlobalAndLocal(length, 24, 2)]
    return nn.Sequential(*first, nn.LayerNorm(48))


class WaveletLevels(nn.Module):
    """Halves a sequence into sums and differences of neighbours, three times (Haar)."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.sees = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, told, 3, padding=1), nn.BatchNorm1d(told), nn.LeakyReLU(0.1)
            )
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return means and highest values of all levels, [N, 16 told] of [N, width, T]."""
        parts = []
        for see in self.sees[:3]:
            x = functional.pad(x, (0, x.shape[2] % 2))
            even, odd = x[:, :, ::2], x[:, :, 1::2]
            x = (even + odd) / math.sqrt(2)
            parts.append(see((even - odd) / math.sqrt(2)))
        parts.append(self.sees[3](x))
        pooled = [functional.adaptive_avg_pool1d(part, 2) for part in parts]
        pooled += [functional.adaptive_max_pool1d(part, 2) for part in parts]
        return torch.cat([part.flatten(1) for part in pooled], 1)


def _wavelet_levels(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 20), Swap(), WaveletLevels(20, 20)]
    return nn.Sequential(*first, nn.Linear(320, 48), nn.BatchNorm1d(48), nn.LeakyReLU(0.1))


class Skipping(nn.Module):
    """A GRU whose state comes from some places before (Chang et al. 2017)."""

    def __init__(self, inputs: int, width: int, skip: int) -> None:
        super().__init__()
        self.layer, self.skip = nn.GRU(inputs, width, batch_first=True), skip

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        count, length, _ = x.shape
        x = functional.pad(x, (0, 0, 0, -length % self.skip))
        apart = x.unflatten(1, (-1, self.skip)).transpose(1, 2).flatten(0, 1)
        out = self.layer(apart)[0].unflatten(0, (count, self.skip))
        together: Tensor = out.transpose(1, 2).flatten(1, 2)[:, :length]
        return together


def _skipping(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = embedded(data, settings, 24)
    layers += [Skipping(24, 24, skip) for skip in (1, 2, 4)]
    return nn.Sequential(*layers, Ends(), nn.LayerNorm(72))


class PathAreas(nn.Module):
    """How far a path goes and which areas it sweeps, in all and in both halves (Lyons 1998)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 3 (F + F²)] of the steps [N, T, F]."""
        half, found = x.shape[1] // 2, []
        for part in (x, x[:, :half], x[:, half:]):
            so_far = part.cumsum(1) - part / 2
            areas = torch.einsum("nti,ntj->nij", so_far, part) / part.shape[1]
            found += [part.sum(1) / part.shape[1] ** 0.5, areas.flatten(1)]
        return torch.cat(found, 1)


def _path_areas(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 16), Swap(), nn.Conv1d(16, 8, 3, padding=1), Swap()]
    first += [nn.Tanh(), PathAreas(), nn.LayerNorm(216)]
    return nn.Sequential(*first, nn.Linear(216, 64), nn.ReLU())


class Differential(nn.Module):
    """Attention less a share of a second attention, against noise (Ye et al. 2025)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.asks, self.keys = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.values, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.less = nn.Parameter(torch.full((heads, 1, 1), 0.4))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width], the input added."""
        seen = self.norm(x)
        asks, keys = (
            layer(seen).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            for layer in (self.asks, self.keys)
        )
        one, other = (asks @ keys.transpose(3, 4) / keys.shape[4] ** 0.5).softmax(4)
        values = self.values(seen).unflatten(2, (self.heads, -1)).transpose(1, 2)
        told = (one - self.less * other) @ values
        added: Tensor = x + self.out(told.transpose(1, 2).flatten(2))
        return added


def _differential(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 32), Places(data.x.shape[1], 32), Differential(32, 4)]
    first += [nn.LayerNorm(32), nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32)]
    return nn.Sequential(*first, Differential(32, 4), Ends(), nn.LayerNorm(96))


class Shapelets(nn.Module):
    """How near some stretch of a sequence comes to each learnt shape (Grabocka et al. 2014)."""

    def __init__(self, width: int, count: int, lengths: tuple[int, ...]) -> None:
        super().__init__()
        self.shapes = nn.ParameterList(
            nn.Parameter(0.7 * torch.randn(count, width, length)) for length in lengths
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest and the mean of each shape, and both ends, of [N, width, T]."""
        found = [x[:, :, :2].flatten(1), x[:, :, -2:].flatten(1)]
        for shapes in self.shapes:
            size = shapes[0].numel()
            own = functional.conv1d(x.square(), torch.ones_like(shapes[:1]))
            far = own - 2 * functional.conv1d(x, shapes) + shapes.square().sum((1, 2))[:, None]
            near = -far / size
            found += [near.amax(2), near.mean(2)]
        return torch.cat(found, 1)


def _shapelets(data: Any, settings: dict[str, Any]) -> nn.Module:
    """The two first and the two last places are told too, for a shape has no place."""
    first = [*embedded(data, settings, 12), Places(data.x.shape[1], 12), nn.LayerNorm(12), Swap()]
    first += [Shapelets(12, 32, (2, 5)), nn.LayerNorm(176)]
    return nn.Sequential(*first, nn.Linear(176, 64), nn.LayerNorm(64), nn.ReLU())


class HashedWords(nn.Module):
    """Words that share vectors: each has three of forty, weighed for itself (Svenstrup 2017)."""

    which: Tensor

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(40, width)
        self.register_buffer("which", torch.randint(0, 40, (symbols, 3)))
        self.weights = nn.Parameter(1 + 0.5 * torch.randn(symbols, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the means of three parts and the highest, [N, 4 width] of [N, T]."""
        words = (self.vectors(self.which[x]) * self.weights[x]).sum(2)
        parts = functional.adaptive_avg_pool1d(words.transpose(1, 2), 3)
        return torch.cat([parts.flatten(1), words.amax(1)], 1)


def _hashed(data: Any, settings: dict[str, Any]) -> nn.Module:
    symbols = int(max(data.x.max(), data.val_x.max())) + 1
    first = [HashedWords(symbols, 32), nn.LayerNorm(128), nn.Linear(128, 48)]
    return nn.Sequential(*first, nn.ReLU())


REPORT_TIME_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "rotating_state": ("report", ("series", "tokens"), _rotating),
    "phased_lstm": ("report", ("series", "tokens"), _phased),
    "global_and_local": ("report", ("series", "tokens"), _global_and_local),
    "batchnorm_wavelet_levels": ("report", ("series", "tokens"), _wavelet_levels),
    "skipping_gru": ("report", ("series", "tokens"), _skipping),
    "path_areas": ("report", ("series", "tokens"), _path_areas),
    "differential_attention": ("report", ("series", "tokens"), _differential),
    "shapelets": ("report", ("series", "tokens"), _shapelets),
    "hashed_words": ("report", ("tokens",), _hashed),
}
