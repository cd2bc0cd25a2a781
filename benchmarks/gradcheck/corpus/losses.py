"""Losses with hand-written gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gradcheck.corpus.custom import Gradients, Saved

Kept = tuple[Tensor, ...]


def _labels(x: Tensor) -> Tensor:
    return torch.arange(len(x)) * 3 % x.shape[-1]


def _cross_entropy(x: Tensor) -> Saved:
    picked = x.log_softmax(-1).gather(-1, _labels(x).unsqueeze(-1))
    return -picked.mean(), (x,)


def _cross_entropy_back(saved: Kept, g: Tensor) -> Gradients:
    (x,) = saved
    hot = torch.nn.functional.one_hot(_labels(x), x.shape[-1]).to(x.dtype)
    return (g * (x.softmax(-1) - hot) / len(x),)


def _target(x: Tensor) -> Tensor:
    return torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)


def _huber(x: Tensor) -> Saved:
    gap = x - _target(x)
    small = gap.abs() < 1
    return torch.where(small, 0.5 * gap.square(), gap.abs() - 0.5).mean(), (gap,)


def _huber_back(saved: Kept, g: Tensor) -> Gradients:
    (gap,) = saved
    return (g * gap.clamp(-1, 1) / gap.numel(),)


def _contrastive(x: Tensor) -> Saved:
    scores = x @ x.T * 0.2
    logs = scores.log_softmax(-1)
    return -logs.roll(1, -1).diagonal().mean(), (x, scores)


def _contrastive_back(saved: Kept, g: Tensor) -> Gradients:
    x, scores = saved
    hot = torch.eye(len(x), dtype=x.dtype).roll(-1, -1)
    inner = g * (scores.softmax(-1) - hot) / len(x) * 0.2
    return (inner @ x + inner.T @ x,)


CROSS_ENTROPY = (_cross_entropy, _cross_entropy_back)
HUBER = (_huber, _huber_back)
CONTRASTIVE = (_contrastive, _contrastive_back)
