"""The architectures for series and tokens of what was the report part of the fifth look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.elsewhere.blocks import Make, Places, Read, Residual, Swap, embedded


class GatedCausal(nn.Module):
    """Convolutions of the past with gates, whose outputs add up (van den Oord et al. 2016)."""

    def __init__(self, width: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.dilations = dilations
        self.inside = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, dilation=d) for d in dilations)
        self.outside = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 width] of [N, width, T]."""
        total = torch.zeros_like(x)
        for dilation, inside, outside in zip(
            self.dilations, self.inside, self.outside, strict=True
        ):
            made, gate = inside(functional.pad(x, (2 * dilation, 0))).chunk(2, 1)
            kept, shown = outside(made.tanh() * gate.sigmoid()).chunk(2, 1)
            x, total = x + kept, total + shown
        total = total.relu()
        return torch.cat([total.mean(2), total[:, :, -1]], 1)


def _gated_causal(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 20), Swap(), GatedCausal(20, (1, 2, 4)))


class LookingBack(nn.Module):
    """An LSTM both ways, whose end asks all its places (Bahdanau et al. 2015)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, width, batch_first=True, bidirectional=True)
        self.ask = nn.Linear(2 * width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 4 width] of [N, T, inputs]."""
        states, (last, _) = self.lstm(x)
        last = last.transpose(0, 1).flatten(1)
        weight = (states * self.ask(last)[:, None]).sum(2).softmax(1)
        return torch.cat([last, (weight[:, :, None] * states).sum(1)], 1)


def _looking_back(data: Any, settings: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*embedded(data, settings, 12), LookingBack(12, 16), nn.LayerNorm(64))


class Widths(nn.Module):
    """Convolutions over time of several widths side by side (Ismail Fawaz et al. 2020)."""

    def __init__(self, inputs: int, each: int) -> None:
        super().__init__()
        widths = (3, 5, 9)
        self.bodies = nn.ModuleList(nn.Conv1d(inputs, each, w, padding=w // 2) for w in widths)
        self.norm = nn.BatchNorm1d(each * len(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 3 each, T] of [N, inputs, T]."""
        return self.norm(torch.cat([body(x) for body in self.bodies], 1)).relu()


def _widths(data: Any, settings: dict[str, Any]) -> nn.Module:
    first = [*embedded(data, settings, 12), Swap(), Widths(12, 8), Widths(24, 8)]
    return nn.Sequential(*first, nn.AdaptiveAvgPool1d(3), nn.Flatten())


def _thirds() -> list[nn.Module]:
    return [Swap(), nn.AdaptiveAvgPool1d(3), nn.Flatten()]


class Spectrum(nn.Module):
    """Mixes places and features by a Fourier transform (Lee-Thorp et al. 2022)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, F] of [N, T, F]."""
        return torch.fft.fft2(x, norm="ortho").real


def _spectrum(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        inside = nn.Sequential(nn.Linear(20, 40), nn.GELU(), nn.Linear(40, 20))
        return [Residual(Spectrum()), nn.LayerNorm(20), Residual(inside), nn.LayerNorm(20)]

    first = [*embedded(data, settings, 20), Places(data.x.shape[1], 20)]
    return nn.Sequential(*first, *block(), *block(), *_thirds())


class StateSpace(nn.Module):
    """Sums of the past that fade, each channel at its learnt rate (Orvieto et al. 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.rate = nn.Parameter(torch.linspace(-3.5, 0.5, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of [N, T, width]."""
        time = torch.arange(x.shape[1], device=x.device)
        ago = (time[:, None] - time)[:, :, None]
        fading = torch.where(ago >= 0, (-self.rate.exp() * ago.clamp(min=0)).exp(), 0.0)
        return self.out(torch.einsum("tsc,nsc->ntc", fading, self.into(x)))


def _state_space(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> nn.Module:
        return Residual(nn.Sequential(nn.LayerNorm(32), StateSpace(32), nn.GELU()))

    blocks = nn.Sequential(block(), block(), nn.LayerNorm(32))
    return nn.Sequential(*embedded(data, settings, 32), Read(blocks, "last"))


def _mixed_time(data: Any, settings: dict[str, Any]) -> nn.Module:
    def block() -> list[nn.Module]:
        over = [nn.LayerNorm(16), Swap(), nn.Linear(data.x.shape[1], data.x.shape[1])]
        inside = [nn.LayerNorm(16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)]
        over += [nn.ReLU(), Swap()]  # Chen et al. 2023
        return [Residual(nn.Sequential(*over)), Residual(nn.Sequential(*inside))]

    first = embedded(data, settings, 16)
    return nn.Sequential(*first, *block(), *block(), nn.LayerNorm(16), *_thirds())


class Words(nn.Module):
    """Vectors of words, and of words where they stand, each added up and brought to one size."""

    def __init__(self, words: int, length: int, width: int) -> None:
        super().__init__()
        self.anywhere = nn.EmbeddingBag(words, width, mode="sum")
        self.there = nn.EmbeddingBag(words * length, width, mode="sum")
        self.norm, self.words = nn.LayerNorm(2 * width), words

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 width] of [N, T]."""
        placed = x + self.words * torch.arange(x.shape[1], device=x.device)
        return self.norm(torch.cat([self.anywhere(x), self.there(placed)], 1))


def _words(data: Any, settings: dict[str, Any]) -> nn.Module:
    count = int(max(data.x.max(), data.val_x.max())) + 1
    return nn.Sequential(Words(count, data.x.shape[1], 20), nn.Linear(40, 40), nn.ReLU())


SEEN_5_TIME_NETS: dict[str, tuple[str, tuple[str, ...], Make]] = {
    "gated_causal": ("seen_5", ("series", "tokens"), _gated_causal),
    "looking_back": ("seen_5", ("series", "tokens"), _looking_back),
    "batchnorm_widths": ("seen_5", ("series", "tokens"), _widths),
    "spectrum": ("seen_5", ("series", "tokens"), _spectrum),
    "state_space": ("seen_5", ("series", "tokens"), _state_space),
    "mixed_time": ("seen_5", ("series", "tokens"), _mixed_time),
    "words": ("seen_5", ("tokens",), _words),
}
