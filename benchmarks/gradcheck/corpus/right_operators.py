"""Torch's own operators of every family, between a linear layer and a fixed read-out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.gradcheck.corpus.case import Built, Case

ROWS, COLUMNS = 6, 12
Operator = Callable[[Tensor], Tensor]


class _Around(nn.Module):
    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.before = nn.Linear(5, COLUMNS)
        self._operator = operator

    def forward(self, x: Tensor) -> Tensor:
        result = self._operator(self.before(x))
        if result.is_complex():
            result = torch.view_as_real(result)
        flat = result.reshape(-1)
        return (flat * torch.linspace(-1, 2, len(flat), dtype=flat.dtype).cos()).mean()


def _loss(module: nn.Module, batch: Tensor) -> Tensor:
    return (module(batch) + 0.7).square()


def _build(operator: Operator, seed: int) -> Built:
    torch.manual_seed(seed)
    return _Around(operator), torch.randn(ROWS, 5), _loss


def _square(h: Tensor) -> Tensor:
    """Return a well-conditioned square matrix."""
    return h[:, :ROWS] * 0.3 + 2 * torch.eye(ROWS, dtype=h.dtype)


def _definite(h: Tensor) -> Tensor:
    return h @ h.T * 0.1 + torch.eye(ROWS, dtype=h.dtype)


def _labels(h: Tensor) -> Tensor:
    return torch.arange(len(h)) % h.shape[1]


def _images(h: Tensor) -> Tensor:
    return h.reshape(1, 2, 6, 6)


def _signal(h: Tensor) -> Tensor:
    return h.reshape(3, 2, 12)


ACTIVATIONS: dict[str, Operator] = {
    name: getattr(F, name)
    for name in (
        "relu", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign",
        "sigmoid", "tanh", "logsigmoid", "hardtanh", "hardswish", "hardsigmoid", "relu6",
        "tanhshrink", "softshrink", "hardshrink", "glu",
    )
}  # fmt: skip
LOSSES: dict[str, Operator] = {
    "cross_entropy": lambda h: F.cross_entropy(h, _labels(h)),
    "label smoothing": lambda h: F.cross_entropy(h, _labels(h), label_smoothing=0.1),
    "nll_loss": lambda h: F.nll_loss(h.log_softmax(1), _labels(h)),
    "mse_loss": lambda h: F.mse_loss(h, torch.ones_like(h)),
    "l1_loss": lambda h: F.l1_loss(h, torch.zeros_like(h)),
    "smooth_l1_loss": lambda h: F.smooth_l1_loss(h, torch.ones_like(h)),
    "huber_loss": lambda h: F.huber_loss(h, torch.ones_like(h), delta=0.5),
    "kl_div": lambda h: F.kl_div(h.log_softmax(1), torch.full_like(h, 1 / COLUMNS)),
    "bce with logits": lambda h: F.binary_cross_entropy_with_logits(h, torch.full_like(h, 0.3)),
    "multi_margin_loss": lambda h: F.multi_margin_loss(h, _labels(h)),
    "hinge_embedding": lambda h: F.hinge_embedding_loss(h, torch.ones_like(h).neg()),
    "cosine_embedding": lambda h: F.cosine_embedding_loss(
        h, torch.linspace(0, 1, h.numel(), dtype=h.dtype).reshape(h.shape), torch.ones(len(h))
    ),
    "triplet margin": lambda h: F.triplet_margin_loss(h[:2], h[2:4], h[4:6]),
    "poisson_nll": lambda h: F.poisson_nll_loss(h, torch.ones_like(h)),
    "ctc_loss": lambda h: F.ctc_loss(
        h.unsqueeze(1).log_softmax(-1), torch.tensor([[1, 2]]), (6,), (2,)
    ),
}
REDUCTIONS: dict[str, Operator] = {
    "max over a row": lambda h: h.max(1).values,
    "amax": lambda h: h.amax(1),
    "min of all": lambda h: h.min(),
    "median": lambda h: h.median(1).values,
    "quantile": lambda h: h.quantile(0.3, dim=1),
    "sort": lambda h: h.sort(1).values,
    "topk": lambda h: h.topk(3, 1).values,
    "cummax": lambda h: h.cummax(1).values,
    "cumprod": lambda h: h.cumprod(1),
    "logcumsumexp": lambda h: h.logcumsumexp(1),
    "prod": lambda h: h.prod(1),
    "std": lambda h: h.std(1),
    "var_mean": lambda h: torch.cat(torch.var_mean(h, 1)),
    "norm of order 1": lambda h: h.norm(p=1, dim=1),
    "norm of order 3": lambda h: h.norm(p=3, dim=1),
    "maximum norm": lambda h: h.norm(p=float("inf"), dim=1),
    "renorm": lambda h: h.renorm(2, 0, 0.5),
    "masked mean": lambda h: (h * (h > 0)).sum() / (h > 0).sum(),
}
ELEMENTWISE: dict[str, Operator] = {
    "abs": torch.abs,
    "clamp": lambda h: h.clamp(-0.5, 0.5),
    "where": lambda h: torch.where(h > 0, h.sin(), h.square()),
    "maximum": lambda h: torch.maximum(h, h.flip(1)),
    "atan2": lambda h: torch.atan2(h, h.roll(1, 1)),
    "sqrt of a square": lambda h: (h.square() + 1e-3).sqrt(),
    "log1p of exp": lambda h: h.exp().log1p(),
    "power": lambda h: (h.square() + 0.1) ** 1.7,
    "remainder": lambda h: h.remainder(1.3),
    "floor and rest": lambda h: h - h.floor(),
    "erfinv": lambda h: h.tanh().mul(0.9).erfinv(),
    "lgamma": lambda h: h.square().add(0.5).lgamma(),
    "sinc": torch.sinc,
    "exponential linear in place": lambda h: F.elu_(h * 1.0),
    "masked fill": lambda h: h.masked_fill(h > 0.5, 0.0),
}
LINEAR_ALGEBRA: dict[str, Operator] = {
    "inverse": lambda h: torch.linalg.inv(_square(h)),
    "solve": lambda h: torch.linalg.solve(_square(h), h),
    "cholesky": lambda h: torch.linalg.cholesky(_definite(h)),
    "log determinant": lambda h: _definite(h).logdet(),
    "eigenvalues": lambda h: torch.linalg.eigvalsh(_definite(h)),
    "singular values": lambda h: torch.linalg.svdvals(h),
    "orthogonal factor": lambda h: torch.linalg.qr(h.T)[0],
    "matrix exponential": lambda h: torch.matrix_exp(_square(h)),
    "pseudo-inverse": lambda h: torch.linalg.pinv(h),
    "einsum": lambda h: torch.einsum("ij,kj,kl->il", h, h, h),
    "baddbmm": lambda h: torch.baddbmm(_signal(h), _signal(h), torch.ones(3, 12, 12)),
    "distances": lambda h: torch.cdist(h, h.flip(0) + 1),
    "distances of order 1": lambda h: torch.cdist(h, h.flip(0) + 1, p=1.0),
}
SPATIAL: dict[str, Operator] = {
    "max_pool2d": lambda h: F.max_pool2d(_images(h), 2),
    "avg_pool2d": lambda h: F.avg_pool2d(_images(h), 2),
    "adaptive_max_pool1d": lambda h: F.adaptive_max_pool1d(_signal(h), 5),
    "max_pool1d": lambda h: F.max_pool1d(_signal(h), 3, 2),
    "lp_pool1d": lambda h: F.lp_pool1d(_signal(h).abs() + 0.1, 2.0, 3),
    "bilinear upsampling": lambda h: F.interpolate(_images(h), scale_factor=2, mode="bilinear"),
    "pixel shuffle": lambda h: F.pixel_shuffle(h.reshape(1, 8, 3, 3), 2),
    "unfold": lambda h: F.unfold(_images(h), 3),
    "reflection padding": lambda h: F.pad(_signal(h), (2, 2), mode="reflect"),
    "grid_sample": lambda h: F.grid_sample(
        _images(h), torch.linspace(-0.9, 0.83, 32).reshape(1, 4, 4, 2), align_corners=False
    ),
    "scatter_add": lambda h: torch.zeros(6, 4, dtype=h.dtype).scatter_add(
        1, torch.arange(12).remainder(4).expand(6, 12), h
    ),
    "index_select": lambda h: h.index_select(1, torch.tensor([3, 3, 1])),
    "gather": lambda h: h.gather(1, h.argsort(1)[:, :3]),
    "fourier transform": lambda h: torch.fft.rfft(h, dim=1),
    "short-time transform": lambda h: torch.stft(
        h, 6, 3, window=torch.ones(6, dtype=h.dtype), return_complex=True
    ),
}
FAMILIES = {
    "activation": ACTIVATIONS,
    "loss": LOSSES,
    "reduction": REDUCTIONS,
    "elementwise": ELEMENTWISE,
    "linear algebra": LINEAR_ALGEBRA,
    "spatial": SPATIAL,
}


def operator_cases() -> list[Case]:
    """Return one right case for each operator."""
    return [
        Case(f"{family}: {name}", family, partial(_build, operator))
        for family, operators in FAMILIES.items()
        for name, operator in operators.items()
    ]
