"""Convolution, pooling, embedding, attention and rotary positions with hand-written gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, pad

from benchmarks.gradcheck.corpus.custom import Gradients, Saved

Kept = tuple[Tensor, ...]


def _convolution(x: Tensor, weight: Tensor) -> Saved:
    return conv1d(x, weight), (x, weight)


def _convolution_back(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    size = weight.shape[-1]
    back = conv1d(pad(g, (size - 1, size - 1)), weight.flip(-1).transpose(0, 1))
    windows = x.unfold(-1, size, 1)
    return back, torch.einsum("bot,bitk->oik", g, windows)


def _convolution_2d(x: Tensor, weight: Tensor) -> Saved:
    return conv2d(x, weight), (x, weight)


def _convolution_2d_back(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    edge = weight.shape[-1] - 1
    back = conv2d(pad(g, (edge,) * 4), weight.flip(-1, -2).transpose(0, 1))
    windows = x.unfold(-2, edge + 1, 1).unfold(-2, edge + 1, 1)
    return back, torch.einsum("bohw,bihwkl->oikl", g, windows)


def _max_pool(x: Tensor) -> Saved:
    values, indices = x.unflatten(-1, (-1, 2)).max(-1, keepdim=True)
    return values.squeeze(-1), (indices, x)


def _max_pool_back(saved: Kept, g: Tensor) -> Gradients:
    indices, x = saved
    back = torch.zeros_like(x).unflatten(-1, (-1, 2))
    return (back.scatter(-1, indices, g.unsqueeze(-1)).flatten(-2),)


def _average_pool(x: Tensor) -> Saved:
    return x.unflatten(-1, (-1, 2)).mean(-1), (x,)


def _average_pool_back(saved: Kept, g: Tensor) -> Gradients:
    return (g.repeat_interleave(2, -1) / 2,)


def _rows(x: Tensor) -> Tensor:
    """Return a row number for each sample, the same whatever the values are."""
    return torch.arange(len(x)) * 5 % 7


def _embedding(x: Tensor, weight: Tensor) -> Saved:
    return x * weight[_rows(x)], (x, weight)


def _embedding_back(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    back = torch.zeros_like(weight).index_add(0, _rows(x), g * x)
    return g * weight[_rows(x)], back


def _attention(x: Tensor, query: Tensor, key: Tensor) -> Saved:
    scale = x.shape[-1] ** -0.5
    weights = ((x @ query) @ (x @ key).transpose(-1, -2) * scale).softmax(-1)
    return weights @ x, (x, query, key, weights)


def _attention_back(saved: Kept, g: Tensor) -> Gradients:
    x, query, key, weights = saved
    scale = x.shape[-1] ** -0.5
    inner = g @ x.transpose(-1, -2)
    scores = weights * (inner - (inner * weights).sum(-1, keepdim=True)) * scale
    to_query, to_key = scores @ (x @ key), scores.transpose(-1, -2) @ (x @ query)
    back = weights.transpose(-1, -2) @ g + to_query @ query.T + to_key @ key.T
    turned = x.transpose(-1, -2)
    return back, (turned @ to_query).sum(0), (turned @ to_key).sum(0)


def _angles(x: Tensor) -> Tensor:
    return torch.arange(x.shape[-2], dtype=x.dtype).unsqueeze(-1) * 0.7


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def _rotary(x: Tensor) -> Saved:
    return _turn(x, _angles(x)), (x,)


def _rotary_back(saved: Kept, g: Tensor) -> Gradients:
    return (_turn(g, -_angles(g)),)


CONVOLUTION = (_convolution, _convolution_back)
CONVOLUTION_2D = (_convolution_2d, _convolution_2d_back)
MAX_POOL = (_max_pool, _max_pool_back)
AVERAGE_POOL = (_average_pool, _average_pool_back)
EMBEDDING = (_embedding, _embedding_back)
ATTENTION = (_attention, _attention_back)
ROTARY = (_rotary, _rotary_back)
