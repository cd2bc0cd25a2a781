"""Linear maps, activations and norms with hand-written gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.gradcheck.corpus.custom import Gradients, Saved

Kept = tuple[Tensor, ...]
_EPSILON = 1e-5


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Saved:
    return x @ weight.T + bias, (x, weight)


def _linear_back(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    return g @ weight, g.T @ x, g.sum(0)


def _bilinear(x: Tensor, weight: Tensor) -> Saved:
    return (x @ weight) * x, (x, weight)


def _bilinear_back(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    return (g * x) @ weight.T + g * (x @ weight), x.T @ (g * x)


def _relu(x: Tensor) -> Saved:
    return x.clamp(min=0), (x,)


def _relu_back(saved: Kept, g: Tensor) -> Gradients:
    return (g * (saved[0] > 0),)


def _tanh(x: Tensor) -> Saved:
    y = x.tanh()
    return y, (y,)


def _tanh_back(saved: Kept, g: Tensor) -> Gradients:
    return (g * (1 - saved[0] ** 2),)


def _silu(x: Tensor) -> Saved:
    return x * x.sigmoid(), (x,)


def _silu_back(saved: Kept, g: Tensor) -> Gradients:
    (x,) = saved
    s = x.sigmoid()
    return (g * (s + x * s * (1 - s)),)


def _gelu(x: Tensor) -> Saved:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), (x,)


def _gelu_back(saved: Kept, g: Tensor) -> Gradients:
    (x,) = saved
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return (g * (0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density),)


def _prelu(x: Tensor, slope: Tensor) -> Saved:
    return torch.where(x > 0, x, slope * x), (x, slope)


def _prelu_back(saved: Kept, g: Tensor) -> Gradients:
    x, slope = saved
    negative = x <= 0
    return torch.where(negative, g * slope, g), (g * x * negative).sum(0)


def _softmax(x: Tensor) -> Saved:
    y = x.softmax(-1)
    return y, (y,)


def _softmax_back(saved: Kept, g: Tensor) -> Gradients:
    (y,) = saved
    return (y * (g - (g * y).sum(-1, keepdim=True)),)


def _log_sum_exp(x: Tensor) -> Saved:
    return x.logsumexp(-1, keepdim=True), (x,)


def _log_sum_exp_back(saved: Kept, g: Tensor) -> Gradients:
    return (g * saved[0].softmax(-1),)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Saved:
    centred = x - x.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + _EPSILON).rsqrt()
    return centred * inverse * weight + bias, (centred * inverse, inverse, weight)


def _layer_norm_back(saved: Kept, g: Tensor) -> Gradients:
    normal, inverse, weight = saved
    inner = g * weight
    mean, along = inner.mean(-1, keepdim=True), (inner * normal).mean(-1, keepdim=True)
    return inverse * (inner - mean - normal * along), (g * normal).sum(0), g.sum(0)


def _rms_norm(x: Tensor, weight: Tensor) -> Saved:
    inverse = (x.square().mean(-1, keepdim=True) + _EPSILON).rsqrt()
    return x * inverse * weight, (x * inverse, inverse, weight)


def _rms_norm_back(saved: Kept, g: Tensor) -> Gradients:
    normal, inverse, weight = saved
    inner = g * weight
    along = (inner * normal).mean(-1, keepdim=True)
    return inverse * (inner - normal * along), (g * normal).sum(0)


def _batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Saved:
    centred = x - x.mean(0)
    inverse = (centred.square().mean(0) + _EPSILON).rsqrt()
    return centred * inverse * weight + bias, (centred * inverse, inverse, weight)


def _batch_norm_back(saved: Kept, g: Tensor) -> Gradients:
    normal, inverse, weight = saved
    inner = g * weight
    along = (inner * normal).mean(0)
    return inverse * (inner - inner.mean(0) - normal * along), (g * normal).sum(0), g.sum(0)


def _unit_length(x: Tensor) -> Saved:
    length = x.norm(dim=-1, keepdim=True)
    return x / length, (x / length, length)


def _unit_length_back(saved: Kept, g: Tensor) -> Gradients:
    unit, length = saved
    return ((g - unit * (g * unit).sum(-1, keepdim=True)) / length,)


def _running_sum(x: Tensor) -> Saved:
    return x.cumsum(-1), (x,)


def _running_sum_back(saved: Kept, g: Tensor) -> Gradients:
    return (g.flip(-1).cumsum(-1).flip(-1),)


LINEAR = (_linear, _linear_back)
BILINEAR = (_bilinear, _bilinear_back)
RELU = (_relu, _relu_back)
TANH = (_tanh, _tanh_back)
SILU = (_silu, _silu_back)
GELU = (_gelu, _gelu_back)
PRELU = (_prelu, _prelu_back)
SOFTMAX = (_softmax, _softmax_back)
LOG_SUM_EXP = (_log_sum_exp, _log_sum_exp_back)
LAYER_NORM = (_layer_norm, _layer_norm_back)
RMS_NORM = (_rms_norm, _rms_norm_back)
BATCH_NORM = (_batch_norm, _batch_norm_back)
UNIT_LENGTH = (_unit_length, _unit_length_back)
RUNNING_SUM = (_running_sum, _running_sum_back)
