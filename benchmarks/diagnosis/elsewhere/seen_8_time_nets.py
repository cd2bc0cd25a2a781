"""The architectures for series and tokens of what was the report part of the eighth look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Residual, Swap, embedded


class Independent(nn.Module):
    """A recurrent net in which each unit remembers only itself (Li et al. 2018)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.given, self.kept = nn.Linear(inputs, width), nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        given = self.given(x)
        state, states = torch.zeros_like(given[:, 0]), []
        for now in given.unbind(1):
            state = (now + self.kept * state).relu()
            states.append(state)
        return torch.stack(states, 1)


class LastAndMean(nn.Module):
    """The last place of a sequence beside the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 F] of [N, T, F]."""
        return torch.cat([x[:, -1], x.mean(1)], 1)


def _independent(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = [Independent(16, 32), nn.LayerNorm(32), Independent(32, 32), LastAndMean()]
    return nn.Sequential(*embedded(data, settings, 16), *layers, nn.LayerNorm(64))


class Selective(nn.Module):
    """States that fade as fast as the input wants it, and are read as it says (Gu & Dao 2023)."""

    def __init__(self, width: int, each: int = 4) -> None:
        super().__init__()
        self.into, self.step = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.near = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.write_and_read = nn.Linear(width, 2 * each)
        self.fades = nn.Parameter(torch.arange(1.0, each + 1).log().repeat(width, 1))
        self.out = nn.Linear(width, width)
        for layer in (self.near, self.out):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        value, gate = self.into(x).chunk(2, 2)
        before = self.near(value.transpose(1, 2))[:, :, : x.shape[1]]
        value = functional.silu(before.transpose(1, 2))
        step = functional.softplus(self.step(value))[:, :, :, None]
        write, read = self.write_and_read(value).chunk(2, 2)
        keeps = (-step * self.fades.exp()).exp()
        added = step * value[:, :, :, None] * write[:, :, None, :]
        state, told = torch.zeros_like(added[:, 0]), []
        for time in range(x.shape[1]):
            state = keeps[:, time] * state + added[:, time]
            told.append((state * read[:, time, None]).sum(2))
        out: Tensor = self.out((torch.stack(told, 1) + value) * functional.silu(gate))
        return out


def _selective(data: Any, settings: dict[str, Any]) -> nn.Module:
    blocks = (Residual(nn.Sequential(nn.LayerNorm(24), Selective(24))) for _ in range(2))
    last = [LastAndMean(), nn.LayerNorm(48)]
    return nn.Sequential(*embedded(data, settings, 24), *blocks, *last)


class Past(nn.Module):
    """Attention of each place to those before it (Radford et al. 2018)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        parts = self.ask(x).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        question, key, value = parts.unbind(2)
        seen = functional.scaled_dot_product_attention(question, key, value, is_causal=True)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return out


def _inside(width: int, wide: int, activation: nn.Module) -> nn.Module:
    layers = [nn.LayerNorm(width), nn.Linear(width, wide), activation, nn.Linear(wide, width)]
    return Residual(nn.Sequential(*layers))


def _decoder(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        seen = Residual(nn.Sequential(nn.LayerNorm(24), Past(24, 3)))
        return [seen, _inside(24, 48, nn.GELU())]

    first = [*embedded(data, settings, 24), Places(data.x.shape[1], 24)]
    return nn.Sequential(*first, *block(), *block(), LastAndMean(), nn.LayerNorm(48))


class Seen(nn.Module):
    """Attention of all places to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        out: Tensor = self.layer(x, x, x, need_weights=False)[0]
        return out


def _conformer(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Attention and convolutions between two small layers (Gulati et al. 2020)."""
    near = [nn.LayerNorm(20), Swap(), nn.Conv1d(20, 40, 1), nn.GLU(1)]
    near += [nn.Conv1d(20, 20, 5, padding=2, groups=20), nn.GroupNorm(4, 20), nn.SiLU()]
    near += [nn.Conv1d(20, 20, 1), Swap()]
    far = Residual(nn.Sequential(nn.LayerNorm(20), Seen(20, 2)))
    block = [_inside(20, 40, nn.SiLU()), far, Residual(nn.Sequential(*near))]
    first = [*embedded(data, settings, 20), Places(data.x.shape[1], 20)]
    last = [_inside(20, 40, nn.SiLU()), nn.LayerNorm(20), Swap(), nn.AdaptiveAvgPool1d(3)]
    return nn.Sequential(*first, *block, *last, nn.Flatten())


class ResidualGRU(nn.Module):
    """A GRU whose states are added to its inputs and brought to one size (Wu et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.norm = nn.GRU(width, width, batch_first=True), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        out: Tensor = self.norm(x + self.layer(x)[0])
        return out


def _residual_gru(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(
        *embedded(data, settings, 28), ResidualGRU(28), ResidualGRU(28), LastAndMean()
    )


def _residual_time(data: Any, settings: dict[str, Any]) -> nn.Module:
    """Residual blocks of three convolutions each over time (Wang et al. 2017)."""

    def block() -> nn.Module:
        layers: list[nn.Module] = []
        for size in (5, 3, 3):
            layers += [nn.Conv1d(24, 24, size, padding="same"), nn.BatchNorm1d(24), nn.ReLU()]
        return Residual(nn.Sequential(*layers))

    first = [*embedded(data, settings, 24), Swap()]
    return nn.Sequential(*first, block(), block(), nn.AdaptiveAvgPool1d(3), nn.Flatten())


class LongFilters(nn.Module):
    """Filters as long as the sequence, which a gate lets through (Poli et al. 2023)."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        fading = torch.exp(-torch.arange(length) / 4)[:, None]
        self.filters = nn.Parameter(fading * torch.randn(length, width) / 2)
        self.into, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        length = x.shape[1]
        value, gate = self.into(x).chunk(2, 2)
        waves = torch.fft.rfft(value, 2 * length, 1) * torch.fft.rfft(self.filters, 2 * length, 0)
        past = torch.fft.irfft(waves, 2 * length, 1)[:, :length]
        out: Tensor = self.out((value + past) * functional.silu(gate))
        return out


def _long_filters(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:
        return Residual(nn.Sequential(nn.LayerNorm(24), LongFilters(data.x.shape[1], 24)))

    first = [*embedded(data, settings, 24), block(), _inside(24, 48, nn.GELU()), block()]
    return nn.Sequential(*first, LastAndMean(), nn.LayerNorm(48))


class Codebook(nn.Module):
    """How places differ from the codes that they are most like (Arandjelovic et al. 2016)."""

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.choose = nn.Linear(width, codes)
        self.codes = nn.Parameter(torch.randn(codes, width) / 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, codes width] of [N, T, width]."""
        share: Tensor = self.choose(x).softmax(2)
        sums = share.transpose(1, 2) @ x - share.sum(1)[:, :, None] * self.codes
        return sums.flatten(1)


def _codebook(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 16), Places(data.x.shape[1], 16), Swap()]
    first += [nn.Conv1d(16, 16, 5, padding=2), nn.ReLU(), Swap(), Codebook(16, 8)]
    return nn.Sequential(*first, nn.LayerNorm(128), nn.Linear(128, 48), nn.ReLU())


class WordPairs(nn.Module):
    """The mean of the vectors of words, and the products of all pairs of them (Rendle 2010)."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        nn.init.normal_(self.words.weight, std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 width] of [N, T]."""
        found = self.words(x)
        total = found.sum(1)
        pairs = (total.square() - found.square().sum(1)) / 2
        return torch.cat([total, pairs], 1)


def _word_pairs(data: Any, settings: dict[str, Any]) -> nn.Module:
    words = int(max(data.x.max(), data.val_x.max())) + 1
    last = [nn.LayerNorm(64), nn.Linear(64, 48), nn.ReLU()]
    return nn.Sequential(WordPairs(words, 32), *last)


SEEN_8_TIME_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "independent": ("seen_8", ("series", "tokens"), _independent),
    "selective": ("seen_8", ("series", "tokens"), _selective),
    "decoder": ("seen_8", ("series", "tokens"), _decoder),
    "conformer": ("seen_8", ("series", "tokens"), _conformer),
    "residual_gru": ("seen_8", ("series", "tokens"), _residual_gru),
    "batchnorm_residual_time": ("seen_8", ("series", "tokens"), _residual_time),
    "long_filters": ("seen_8", ("series", "tokens"), _long_filters),
    "codebook": ("seen_8", ("series", "tokens"), _codebook),
    "word_pairs": ("seen_8", ("tokens",), _word_pairs),
}
