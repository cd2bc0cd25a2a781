"""Right modules in which a careless check finds faults: kinks, noise, constants, state."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from benchmarks.gradcheck.corpus.case import Built, Case
from benchmarks.gradcheck.corpus.custom import custom
from benchmarks.gradcheck.corpus.dense import RELU, TANH

_Relu = custom("Relu", *RELU)
_Tanh = custom("Tanh", *TANH)
_FLOAT32_TABLE = torch.linspace(0.5, 1.5, 6, dtype=torch.float32)
_FLOAT32_MATRIX = torch.eye(6, dtype=torch.float32) * 0.7


class _Regime(nn.Module):
    """A linear layer whose result goes through ``through``; subclasses say how."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.prepare()

    def prepare(self) -> None:
        """Add what the subclass needs."""

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        """Return what the loss is taken of."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.through(self.linear(x), x)


class _ZeroBiasRelu(_Regime):
    def prepare(self) -> None:
        nn.init.zeros_(self.linear.bias)
        nn.init.zeros_(self.linear.weight)

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h.relu() + 0.1 * h


class _TiedMaximum(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.stack([h, h.clone(), h - 1]).max(0).values


class _ReluOfEmptyRows(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        empty = torch.zeros_like(x)
        return torch.cat([h, F.linear(empty, self.linear.weight)]).relu()


class _AbsoluteAtZero(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return (h - h.detach()).abs() + h


class _TiedWeights(_Regime):
    def prepare(self) -> None:
        self.other = nn.Linear(6, 6)
        self.other.weight = self.linear.weight

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return self.other(h.tanh())


class _UsedTwice(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return self.linear(self.linear(h.tanh()).tanh())


class _UnusedParameters(_Regime):
    def prepare(self) -> None:
        self.spare = nn.Linear(6, 6)
        self.muted = nn.Parameter(torch.ones(6))

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h + 0.0 * self.muted


class _Embedded(_Regime):
    """The layer's result times rows that are looked up, of which there are ``num_rows``."""

    make_table: partial[nn.Module]
    num_rows: int

    def prepare(self) -> None:
        self.table = self.make_table()

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h * self.table(torch.arange(len(h)) % self.num_rows)


class _UnusedRows(_Embedded):
    make_table, num_rows = partial(nn.Embedding, 50, 6, padding_idx=0), 3


class _SparseEmbedding(_Embedded):
    make_table, num_rows = partial(nn.Embedding, 20, 6, sparse=True), 5


class _EmbeddingBag(_Embedded):
    make_table = partial(nn.EmbeddingBag, 20, 6, mode="max")

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h * self.table(torch.arange(2 * len(h)).remainder(7).reshape(len(h), 2))


class _BoundedEmbedding(_Embedded):
    make_table, num_rows = partial(nn.Embedding, 10, 6, max_norm=1.0), 4


class _ClampedWeights(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.linear.weight.clamp_(-0.2, 0.2)
        return F.linear(x, self.linear.weight).tanh()


class _ClampedThroughData(_Regime):
    def forward(self, x: Tensor) -> Tensor:
        self.linear.weight.data.clamp_(-0.2, 0.2)
        return self.linear(x).tanh()


class _StraightThrough(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h + (h.round() - h).detach()


class _BinaryWeights(_Regime):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.linear.weight
        binary = weight + (weight.sign() * weight.abs().mean() - weight).detach()
        return F.linear(x, binary, self.linear.bias)


class _DetachedTarget(_Regime):
    def prepare(self) -> None:
        self.teacher = nn.Linear(6, 6)

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.teacher(x).tanh() + 0.1 * h
        return h - target


class _StopByItem(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h / (1.0 + h.abs().max().item())


class _StopByData(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h * h.data.sigmoid() + float(h.sum())


class _StopThroughNumpy(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        scale = np.abs(h.detach().numpy()).max().astype(np.float32)
        return h * torch.from_numpy(np.asarray([scale], dtype=np.float32))


class _VectorQuantiser(_Regime):
    def prepare(self) -> None:
        self.codes = nn.Parameter(torch.randn(5, 6))

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        nearest = self.codes[torch.cdist(h, self.codes).argmin(1)]
        commitment = (h - nearest.detach()).square().mean() + (nearest - h.detach()).square().mean()
        return h + (nearest - h).detach() + commitment


class _MovingAverage(_Regime):
    def prepare(self) -> None:
        self.register_buffer("average", torch.zeros(6))

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.average.mul_(0.9).add_(0.1 * h.mean(0))
        return h - self.average


class _Checkpointed(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return checkpoint(self._inner, h, use_reentrant=False)

    def _inner(self, h: Tensor) -> Tensor:
        return F.dropout(self.linear(h).tanh(), 0.3)


class _CheckpointedReentrantly(_Checkpointed):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return checkpoint(self._inner, h, use_reentrant=True)


class _GradientPenalty(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.linear(leaf).tanh().sum(), leaf, create_graph=True)
        return h + slope.square()


class _InPlace(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        y = h * 1.0
        y.mul_(2).add_(1).clamp_(min=-0.5)
        y[:, 0] = y[:, 1].exp()
        return y


class _CachedState(_Regime):
    def prepare(self) -> None:
        self.cell = nn.LSTMCell(6, 6)
        self.state: tuple[Tensor, Tensor] | None = None

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        if self.state is None:
            self.state = (torch.zeros_like(h), torch.zeros_like(h))
        hidden, memory = self.cell(h, tuple(part.detach() for part in self.state))
        self.state = (hidden, memory)
        return hidden


class _CountsItsCalls(_Regime):
    def prepare(self) -> None:
        self.calls = 0
        self.history: list[float] = []

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(0.5)
        return h * self.calls * len(self.history)


class _PythonNoise(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        noise = torch.randn_like(h) + float(np.random.random())  # noqa: NPY002
        return h * noise


class _OwnGenerator(_Regime):
    def prepare(self) -> None:
        self.generator = torch.Generator().manual_seed(3)

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h * torch.rand(h.shape, generator=self.generator, dtype=h.dtype)


class _FreshEntropy(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h * float(np.random.default_rng().random())


class _Float32Constants(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        scale = torch.tensor([0.3, 0.7, 1.1, 1.3, 0.2, 0.9], dtype=torch.float32)
        return (h * scale * _FLOAT32_TABLE) @ _FLOAT32_MATRIX.to(h)


class _Float32Casts(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h.float().softmax(1).to(torch.bfloat16).type_as(h) + h.half().tanh()


class _Float32Global(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h.tanh() @ _FLOAT32_MATRIX


class _Autocast(_Regime):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.linear(x).tanh()


class _ComplexWeights(_Regime):
    def prepare(self) -> None:
        self.turn = nn.Parameter(torch.randn(6, dtype=torch.complex64))

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.fft(h) * self.turn)


class _ControlFlow(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h.exp() if h.sum() > 0 else h.sin()


class _Routed(_Regime):
    def prepare(self) -> None:
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        weight, chosen = h[:, :3].softmax(1).max(1)
        rows = [self.experts[int(index)](row) for row, index in zip(h, chosen, strict=True)]
        return torch.stack(rows) * weight.unsqueeze(1)


class _LargeLoss(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return h.tanh() * 1e-4 + 1e3


class _TinyGradients(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return (1e-6 * h).tanh() + x


class _DeepSigmoid(_Regime):
    def prepare(self) -> None:
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h).sigmoid()
        return h


class _ZeroGate(_Regime):
    def prepare(self) -> None:
        self.gate = nn.Parameter(torch.zeros(6))

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return x + self.gate * _Tanh.apply(_Relu.apply(h))


class _Frozen(_Regime):
    def prepare(self) -> None:
        self.frozen = nn.Linear(6, 6).requires_grad_(False)

    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return self.frozen(h.tanh())


class _BoundApply(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return _bound_tanh(h)


class _FunctionalTransforms(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda row: row.sin().sum()))(h)


class _SharpButSmooth(_Regime):
    def through(self, h: Tensor, x: Tensor) -> Tensor:
        return (60 * h).sigmoid() + 0.1 * (20 * h).sin()


_bound_tanh: Any = _Tanh.apply
REGIMES: tuple[type[_Regime], ...] = (
    _ZeroBiasRelu, _TiedMaximum, _ReluOfEmptyRows, _AbsoluteAtZero, _TiedWeights, _UsedTwice,
    _UnusedParameters, _UnusedRows, _SparseEmbedding, _EmbeddingBag, _BoundedEmbedding,
    _ClampedWeights, _ClampedThroughData, _StraightThrough, _BinaryWeights, _DetachedTarget,
    _StopByItem, _StopByData, _StopThroughNumpy, _VectorQuantiser, _MovingAverage,
    _Checkpointed, _CheckpointedReentrantly, _GradientPenalty, _InPlace, _CachedState,
    _CountsItsCalls, _PythonNoise, _OwnGenerator, _FreshEntropy, _Float32Constants,
    _Float32Casts, _Float32Global, _Autocast, _ComplexWeights, _ControlFlow, _Routed,
    _LargeLoss, _TinyGradients, _DeepSigmoid, _ZeroGate, _Frozen, _BoundApply,
    _FunctionalTransforms, _SharpButSmooth,
)  # fmt: skip


def _loss(module: nn.Module, batch: Tensor) -> Tensor:
    return (module(batch) - 0.2).square().mean()


def _build(kind: type[_Regime], seed: int) -> Built:
    torch.manual_seed(seed)
    return kind(), torch.randn(8, 6), _loss


def regime_cases() -> list[Case]:
    """Return one right case for each regime."""
    return [
        Case(f"regime: {kind.__name__[1:]}", "regime", partial(_build, kind)) for kind in REGIMES
    ]
