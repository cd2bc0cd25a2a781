"""The architectures for series and tokens of what was the report part of the sixth look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Read, Residual, Swap, embedded


class QuasiRecurrent(nn.Module):
    """Gates made by a convolution, and a state without weights (Bradbury et al. 2017)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.gates = nn.Conv1d(inputs, 3 * width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, inputs]."""
        made, forget, show = self.gates(functional.pad(x.transpose(1, 2), (1, 0))).chunk(3, 1)
        made, forget = made.tanh(), forget.sigmoid()
        state, states = torch.zeros_like(made[:, :, 0]), []
        for now in range(x.shape[1]):
            state = forget[:, :, now] * state + (1 - forget[:, :, now]) * made[:, :, now]
            states.append(state)
        return (torch.stack(states, 2) * show.sigmoid()).transpose(1, 2)


def _quasi_recurrent(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers = nn.Sequential(QuasiRecurrent(16, 32), QuasiRecurrent(32, 32))
    return nn.Sequential(*embedded(data, settings, 16), Read(layers, "last"), nn.LayerNorm(32))


class Rotary(nn.Module):
    """Attention whose questions and keys are turned by their places (Su et al. 2021)."""

    turns: Tensor

    def __init__(self, length: int, width: int, heads: int) -> None:
        super().__init__()
        self.ask, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, half = heads, width // heads // 2
        speed = 100.0 ** -(torch.arange(half) / half)
        self.register_buffer("turns", torch.arange(length)[:, None] * speed)

    def turned(self, x: Tensor) -> Tensor:
        """Return [N, heads, T, F] of the same."""
        left, right = x.chunk(2, -1)
        sine, cosine = self.turns.sin(), self.turns.cos()
        return torch.cat([left * cosine - right * sine, left * sine + right * cosine], -1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        asked = self.ask(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        question, key, value = asked
        seen = functional.scaled_dot_product_attention(
            self.turned(question), self.turned(key), value
        )
        return self.out(seen.transpose(1, 2).flatten(2))


def _rotary(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        seen = nn.Sequential(nn.LayerNorm(32), Rotary(data.x.shape[1], 32, 4))
        inside = [nn.LayerNorm(32), nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32)]
        return [Residual(seen), Residual(nn.Sequential(*inside))]

    blocks = [*block(), *block(), nn.LayerNorm(32), Swap(), nn.AdaptiveAvgPool1d(2), nn.Flatten()]
    return nn.Sequential(*embedded(data, settings, 32), *blocks)


class Halved(nn.Module):
    """Puts each two places that follow each other into one (Chan et al. 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T / 2, 2 F] of [N, T, F]; an odd first place is doubled."""
        x = torch.cat([x[:, :1], x], 1) if x.shape[1] % 2 else x
        return x.unflatten(1, (-1, 2)).flatten(2)


class States(nn.Module):
    """The states of a recurrent net at all places."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, F]."""
        out: Tensor = self.layer(x)[0]
        return out


def _halving(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 12), States(nn.LSTM(12, 20, batch_first=True)), Halved()]
    then = [States(nn.LSTM(40, 24, batch_first=True)), Halved()]
    last = [Read(nn.LSTM(48, 32, batch_first=True), "last"), nn.LayerNorm(32)]
    return nn.Sequential(*first, *then, *last)


class Stacked(nn.Module):
    """Nets that each explain a part of what the others left over (Oreshkin et al. 2020)."""

    def __init__(self, inputs: int, width: int, count: int) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            for _ in range(count)
        )
        self.explains = nn.ModuleList(nn.Linear(width, inputs) for _ in range(count - 1))
        self.says = nn.ModuleList(nn.Linear(width, 24) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 24] of [N, inputs]."""
        hidden = self.bodies[0](x)
        total: Tensor = self.says[0](hidden)
        for explains, body, says in zip(self.explains, self.bodies[1:], self.says[1:], strict=True):
            x = x - explains(hidden)
            hidden = body(x)
            total = total + says(hidden)
        return total


def _stacked(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 8), nn.Flatten()]
    return nn.Sequential(*first, Stacked(8 * data.x.shape[1], 64, 3), nn.LayerNorm(24))


class Stretches(nn.Module):
    """Cuts a sequence into stretches that overlap by half, each a vector (Nie et al. 2023)."""

    def __init__(self, inputs: int, size: int, width: int) -> None:
        super().__init__()
        self.size, self.linear = size, nn.Linear(size * inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, stretches, width] of [N, T, inputs]."""
        return self.linear(x.unfold(1, self.size, self.size // 2).flatten(2))


def _stretches(data: Any, settings: dict[str, Any]) -> nn.Module:
    count = (data.x.shape[1] - 4) // 2 + 1
    block = nn.TransformerEncoderLayer(24, 4, 48, 0.0, "gelu", batch_first=True, norm_first=True)
    first = [*embedded(data, settings, 8), Stretches(8, 4, 24), Places(count, 24)]
    return nn.Sequential(*first, block, nn.LayerNorm(24), nn.Flatten(), nn.Linear(24 * count, 40))


class Moments(nn.Module):
    """Mean and spread over time of each channel (Snyder et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 C] of [N, C, T]."""
        return torch.cat([x.mean(2), (x.var(2, unbiased=False) + 1e-4).sqrt()], 1)


def _moments(data: Any, settings: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = [*embedded(data, settings, 16), Places(data.x.shape[1], 16), Swap()]
    for before, dilation in ((16, 1), (32, 2)):
        layers += [nn.Conv1d(before, 32, 3, padding="same", dilation=dilation)]
        layers += [nn.GroupNorm(4, 32), nn.ReLU()]
    last = [nn.LayerNorm(64), nn.Linear(64, 40), nn.ReLU()]
    return nn.Sequential(*layers, Moments(), *last)


class Bigrams(nn.Module):
    """Vectors of symbols and of pairs that follow each other, in one table (Joulin et al. 2017)."""

    def __init__(self, symbols: int, width: int, buckets: int = 500) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(symbols + buckets, width, mode="mean")
        self.symbols, self.buckets = symbols, buckets

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, T]."""
        pairs = (x[:, :-1] * 31 + x[:, 1:]) % self.buckets
        return self.bag(torch.cat([x, self.symbols + pairs], 1))


def _bigrams(data: Any, settings: dict[str, Any]) -> nn.Module:
    symbols = int(max(data.x.max(), data.val_x.max())) + 1
    return nn.Sequential(Bigrams(symbols, 32), nn.LayerNorm(32), nn.Linear(32, 40), nn.ReLU())


SEEN_6_TIME_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "quasi_recurrent": ("seen_6", ("series", "tokens"), _quasi_recurrent),
    "rotary": ("seen_6", ("series", "tokens"), _rotary),
    "lstm_halving": ("seen_6", ("series", "tokens"), _halving),
    "stacked": ("seen_6", ("series", "tokens"), _stacked),
    "stretches": ("seen_6", ("series", "tokens"), _stretches),
    "moments": ("seen_6", ("series", "tokens"), _moments),
    "bigrams": ("seen_6", ("tokens",), _bigrams),
}
