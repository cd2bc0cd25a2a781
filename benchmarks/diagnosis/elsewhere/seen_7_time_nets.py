"""The architectures for series and tokens of what was the report part of the seventh look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Read, Residual, Swap, embedded


class NormedLSTM(nn.Module):
    """An LSTM by hand whose gates and cells are normalised at each step (Ba et al. 2016)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.given, self.kept = nn.Linear(inputs, 4 * width), nn.Linear(width, 4 * width)
        self.norms = nn.ModuleList([nn.LayerNorm(4 * width), nn.LayerNorm(4 * width)])
        self.of_cell, self.width = nn.LayerNorm(width), width

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state and the mean of all [N, 2 width] of [N, T, inputs]."""
        of_given, of_kept = self.norms
        state = total = cell = x.new_zeros(len(x), self.width)
        for now in of_given(self.given(x)).unbind(1):
            new, forget, made, show = (now + of_kept(self.kept(state))).chunk(4, 1)
            cell = (forget + 1).sigmoid() * cell + new.sigmoid() * made.tanh()
            state = show.sigmoid() * self.of_cell(cell).tanh()
            total = total + state
        return torch.cat([state, total / x.shape[1]], 1)


def _normed_lstm(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 16), NormedLSTM(16, 24), nn.LayerNorm(48))


class Clockwork(nn.Module):
    """A recurrent net of parts, of which the slow ones change seldom (Koutnik et al. 2014)."""

    due: Tensor
    seen: Tensor

    def __init__(self, inputs: int, width: int, periods: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.given = nn.Linear(inputs, width * len(periods))
        self.kept = nn.Linear(width * len(periods), width * len(periods), bias=False)
        period = torch.tensor(periods).repeat_interleave(width)
        self.register_buffer("due", period)
        self.register_buffer("seen", (period[None, :] >= period[:, None]).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state and the mean of all [N, 2 width periods] of [N, T, inputs]."""
        given, weight = self.given(x), self.kept.weight * self.seen
        state = total = torch.zeros_like(given[:, 0])
        for time in range(x.shape[1]):  # the last place is due for all
            made = (given[:, time] + functional.linear(state, weight)).tanh()
            state = torch.where((x.shape[1] - 1 - time) % self.due == 0, made, state)
            total = total + state
        return torch.cat([state, total / x.shape[1]], 1)


def _clockwork(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 12), Clockwork(12, 12), nn.LayerNorm(72))


class RandomKernels(nn.Module):
    """The highest value of fixed random filters, and how often each is positive.

    The filters are not learnt (Dempster et al. 2020).
    """

    def __init__(self, inputs: int, each: int) -> None:
        super().__init__()
        kinds = [(3, 1), (3, 3), (5, 1), (5, 2)]
        self.bodies = nn.ModuleList(
            nn.Conv1d(inputs, each, size, padding="same", dilation=dilation)
            for size, dilation in kinds
        )
        self.bodies.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 8 each] of [N, inputs, T]."""
        made = torch.cat([body(x) for body in self.bodies], 1)
        return torch.cat([made.amax(2), (made > 0).float().mean(2)], 1)


def _random_kernels(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Swap(), RandomKernels(data.x.shape[2], 32), nn.BatchNorm1d(256)]
    return nn.Sequential(*layers, nn.Linear(256, 32), nn.ReLU())


class LinearAttention(nn.Module):
    """Attention without a softmax, whose cost grows as the length (Katharopoulos et al. 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        question, key, value = self.ask(x).unflatten(2, (3, self.heads, -1)).unbind(2)
        question, key = functional.elu(question) + 1, functional.elu(key) + 1
        known = torch.einsum("nthk,nthv->nhkv", key, value)
        total = torch.einsum("nthk,nhk->nth", question, key.sum(1))
        seen = torch.einsum("nthk,nhkv->nthv", question, known) / total[:, :, :, None]
        out: Tensor = self.out(seen.flatten(2))
        return out


def _linear_attention(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        inside = [nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)]
        seen = nn.Sequential(nn.LayerNorm(16), LinearAttention(16, 2))
        return [Residual(seen), Residual(nn.Sequential(*inside))]

    first = [*embedded(data, settings, 16), Places(data.x.shape[1], 16)]
    last = [nn.LayerNorm(16), Swap(), nn.AdaptiveMaxPool1d(3), nn.Flatten()]
    return nn.Sequential(*first, *block(), *block(), *last)


class TwoViews(nn.Module):
    """A sequence as an LSTM sees it beside what convolutions see (Karim et al. 2018)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, 12, batch_first=True)
        layers: list[nn.Module] = []
        for before, after, size in ((inputs, 16, 7), (16, 32, 5), (32, 24, 3)):
            layers += [nn.Conv1d(before, after, size, padding="same")]
            layers += [nn.BatchNorm1d(after), nn.ReLU()]
        self.convolutions, self.drop = nn.Sequential(*layers), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 36] of [N, T, inputs]."""
        state = self.drop(self.lstm(x)[0][:, -1])
        return torch.cat([state, self.convolutions(x.transpose(1, 2)).mean(2)], 1)


def _two_views(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 12), TwoViews(12))


class TrendAndRest(nn.Module):
    """Layers of their own for a moving mean and for what differs from it (Zeng et al. 2023)."""

    def __init__(self, length: int, inputs: int, window: int = 5) -> None:
        super().__init__()
        self.mean = nn.AvgPool1d(window, 1, window // 2, count_include_pad=False)
        self.trend = nn.Sequential(nn.Flatten(), nn.Linear(length * inputs, 32), nn.ReLU())
        self.rest = nn.Sequential(nn.Flatten(), nn.Linear(length * inputs, 32), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 64] of [N, T, inputs]."""
        x = x.transpose(1, 2)
        mean = self.mean(x)
        return torch.cat([self.trend(mean), self.rest(x - mean)], 1)


def _trend_and_rest(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(TrendAndRest(*data.x.shape[1:]), nn.Linear(64, 32), nn.ReLU())


class Parts(nn.Module):
    """Reads each few places by one net, and what it made of them by another (Yang et al. 2016)."""

    def __init__(self, inputs: int, size: int, width: int) -> None:
        super().__init__()
        self.inside = Read(nn.GRU(inputs, width, batch_first=True), "last")
        self.over = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 4 width] of [N, T, inputs]; what is short is filled up with zeros."""
        x = functional.pad(x, (0, 0, 0, -x.shape[1] % self.size))
        parts = x.unflatten(1, (-1, self.size))
        made: Tensor = self.inside(parts.flatten(0, 1)).view(*parts.shape[:2], -1)
        states = self.over(made)[0]
        return torch.cat([states.mean(1), states.amax(1)], 1)


def _parts(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 16), Parts(16, 4, 20), nn.LayerNorm(80))


class MeanAndHighest(nn.Module):
    """The mean and the highest of the vectors of words (Shen et al. 2018)."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 width] of [N, T]."""
        found = self.words(x)
        return torch.cat([found.mean(1), found.amax(1)], 1)


def _mean_and_highest(data: Any, settings: dict[str, Any]) -> nn.Module:
    words = int(max(data.x.max(), data.val_x.max())) + 1
    return nn.Sequential(MeanAndHighest(words, 24), nn.Linear(48, 40), nn.ReLU(), nn.Dropout(0.05))


SEEN_7_TIME_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "normed_lstm": ("seen_7", ("series", "tokens"), _normed_lstm),
    "clockwork": ("seen_7", ("series", "tokens"), _clockwork),
    "batchnorm_random_kernels": ("seen_7", ("series",), _random_kernels),
    "linear_attention": ("seen_7", ("series", "tokens"), _linear_attention),
    "batchnorm_two_views": ("seen_7", ("series", "tokens"), _two_views),
    "trend_and_rest": ("seen_7", ("series",), _trend_and_rest),
    "parts": ("seen_7", ("series", "tokens"), _parts),
    "mean_and_highest": ("seen_7", ("tokens",), _mean_and_highest),
}
