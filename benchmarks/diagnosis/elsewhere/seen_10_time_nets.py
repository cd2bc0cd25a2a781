"""The architectures for series and tokens of what was the report part of the tenth look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Residual, Swap, embedded


class Ends(nn.Module):
    """The last place of a sequence beside the mean of each half."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 3 F] of [N, T, F]."""
        halves = functional.adaptive_avg_pool1d(x.transpose(1, 2), 2).flatten(1)
        return torch.cat([x[:, -1], halves], 1)


def _inside(width: int, wide: int) -> nn.Module:
    layers = [nn.LayerNorm(width), nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width)]
    return Residual(nn.Sequential(*layers))


class Retention(nn.Module):
    """Attention to the past without a softmax, which fades at a pace of each head (Sun 2023)."""

    fades: Tensor

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.ask, self.gate = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.out = nn.GroupNorm(heads, width), nn.Linear(width, width)
        self.heads = heads
        since = torch.arange(length)[:, None] - torch.arange(length)
        pace = 1 - 2.0 ** -torch.arange(1, heads + 1)[:, None, None]
        self.register_buffer("fades", torch.where(since >= 0, pace ** since.clamp(min=0), 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        parts = self.ask(x).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        question, key, value = parts.unbind(2)
        liked = question @ key.transpose(2, 3) * key.shape[3] ** -0.5 * self.fades
        told = (liked @ value).transpose(1, 2).flatten(2)
        told = self.norm(told.flatten(0, 1)).view_as(x)
        out: Tensor = self.out(told * functional.silu(self.gate(x)))
        return out


def _retention(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        seen = nn.Sequential(nn.LayerNorm(24), Retention(24, 3, data.x.shape[1]))
        return [Residual(seen), _inside(24, 48)]

    first = [*embedded(data, settings, 24), Places(data.x.shape[1], 24)]
    return nn.Sequential(*first, *block(), *block(), Ends(), nn.LayerNorm(72))


class Attended(nn.Module):
    """An LSTM whose last state looks back at all of its states (Bahdanau et al. 2015)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(inputs, width, batch_first=True)
        self.asks, self.offers = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.likes = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state and what it found [N, 2 width] of [N, T, inputs]."""
        states, (last, _) = self.layer(x)
        liked = self.likes((self.asks(last[0])[:, None] + self.offers(states)).tanh())
        return torch.cat([last[0], (liked.softmax(1) * states).sum(1)], 1)


def _attended(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 20), Attended(20, 32)]
    return nn.Sequential(*first, nn.Linear(64, 48), nn.Tanh())


class Around(nn.Module):
    """Each place between what a GRU read before it and after it (Lai et al. 2015)."""

    def __init__(self, inputs: int, width: int, wide: int) -> None:
        super().__init__()
        self.layer = nn.GRU(inputs, width, batch_first=True, bidirectional=True)
        self.mixes = nn.Linear(inputs + 2 * width, wide)

    def forward(self, x: Tensor) -> Tensor:
        """Return the highest of each unit and its mean [N, 2 wide] of [N, T, inputs]."""
        mixed = self.mixes(torch.cat([x, self.layer(x)[0]], 2)).tanh()
        return torch.cat([mixed.amax(1), mixed.mean(1)], 1)


def _around(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 20), Around(20, 20, 40))


class Halved(nn.Module):
    """Two convolutions over time beside a shortcut, of every other place (Johnson 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.ReLU(), nn.Conv1d(width, width, 3, padding=1)]
        self.body = nn.Sequential(nn.GroupNorm(4, width), *layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width, T / 2] of [N, width, T]."""
        x = functional.max_pool1d(x, 3, 2, 1)
        out: Tensor = x + self.body(x)
        return out


def _pyramid(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 24), Swap(), nn.Conv1d(24, 24, 3, padding=1)]
    last = [nn.AdaptiveMaxPool1d(2), nn.Flatten(), nn.LayerNorm(48)]
    return nn.Sequential(*first, Halved(24), Halved(24), *last)


class Lengths(nn.Module):
    """Filters of three lengths behind a narrow layer, and the highest values (Fawaz 2020)."""

    def __init__(self, before: int, each: int) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(before, 12, 1, bias=False)
        sizes = (3, 7, 13)
        self.filters = nn.ModuleList(
            nn.Conv1d(12, each, size, padding=size // 2, bias=False) for size in sizes
        )
        self.highest = nn.Sequential(nn.MaxPool1d(3, 1, 1), nn.Conv1d(before, each, 1, bias=False))
        self.norm = nn.BatchNorm1d(4 * each)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 4 each, T] of [N, before, T]."""
        narrow = self.narrow(x)
        parts = [*(layer(narrow) for layer in self.filters), self.highest(x)]
        out: Tensor = self.norm(torch.cat(parts, 1)).relu()
        return out


def _lengths(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Lengths(16, 8), Lengths(32, 8), nn.AdaptiveAvgPool1d(3), nn.Flatten()]
    return nn.Sequential(*embedded(data, settings, 16), Swap(), *layers)


class Fourier(nn.Module):
    """Mixes places and features by the real part of a transform (Lee-Thorp et al. 2022)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, F] of [N, T, F]."""
        mixed: Tensor = torch.fft.fft2(x, dim=(1, 2), norm="ortho").real
        return mixed


def _fourier(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [*embedded(data, settings, 32), Places(data.x.shape[1], 32)]
    for _ in range(2):
        layers += [Residual(nn.Sequential(nn.LayerNorm(32), Fourier())), _inside(32, 64)]
    last = [nn.LayerNorm(32), Swap(), nn.AdaptiveAvgPool1d(4), nn.Flatten()]
    return nn.Sequential(*layers, *last)


class Antisymmetric(nn.Module):
    """A recurrent net whose states neither fade nor grow by themselves (Chang et al. 2019)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.given, self.gate = nn.Linear(inputs, width), nn.Linear(inputs, width)
        self.back = nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        back = self.back - self.back.T - 0.05 * torch.eye(len(self.back), device=x.device)
        given, gates, states = self.given(x), self.gate(x), []
        state = torch.zeros_like(given[:, 0])
        for now, gate in zip(given.unbind(1), gates.unbind(1), strict=True):
            turned = state @ back.T
            state = state + 0.5 * (turned + gate).sigmoid() * (turned + now).tanh()
            states.append(state)
        return torch.stack(states, 1)


def _antisymmetric(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 16), Antisymmetric(16, 40), Ends()]
    return nn.Sequential(*first, nn.LayerNorm(120))


class BackAndForth(nn.Module):
    """Blocks that each explain a part of a series, take it away, and add to what is said.

    Oreshkin et al. (2020).
    """

    def __init__(self, places: int, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(places, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
            for _ in range(blocks)
        )
        self.back = nn.ModuleList(nn.Linear(48, places) for _ in range(blocks - 1))
        self.forth = nn.ModuleList(nn.Linear(48, width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, places]."""
        said: Tensor = x.new_zeros(())
        for number, (block, forth) in enumerate(zip(self.blocks, self.forth, strict=True)):
            known = block(x)
            said = said + forth(known)
            if number < len(self.back):
                x = x - self.back[number](known)
        return said


def _back_and_forth(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 8), nn.Flatten()]
    return nn.Sequential(*first, BackAndForth(8 * data.x.shape[1], 48, 3), nn.LayerNorm(48))


class WordWeights(nn.Module):
    """The sum of the words' vectors, each times a learnt weight of its word, and their mean."""

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.vectors, self.weights = nn.Embedding(symbols, width), nn.Embedding(symbols, 1)
        nn.init.ones_(self.weights.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 width] of [N, T]."""
        vectors = self.vectors(x)
        weighted = (vectors * self.weights(x)).sum(1) / x.shape[1] ** 0.5
        return torch.cat([weighted, vectors.mean(1)], 1)


def _word_weights(data: Any, settings: dict[str, Any]) -> nn.Module:
    symbols = int(max(data.x.max(), data.val_x.max())) + 1
    return nn.Sequential(WordWeights(symbols, 32), nn.Linear(64, 48), nn.SELU())


SEEN_10_TIME_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "retention": ("seen_10", ("series", "tokens"), _retention),
    "lstm_attended": ("seen_10", ("series", "tokens"), _attended),
    "around": ("seen_10", ("series", "tokens"), _around),
    "pyramid_over_time": ("seen_10", ("series", "tokens"), _pyramid),
    "batchnorm_lengths": ("seen_10", ("series", "tokens"), _lengths),
    "fourier_mixing": ("seen_10", ("series", "tokens"), _fourier),
    "antisymmetric": ("seen_10", ("series", "tokens"), _antisymmetric),
    "back_and_forth": ("seen_10", ("series", "tokens"), _back_and_forth),
    "word_weights": ("seen_10", ("tokens",), _word_weights),
}
