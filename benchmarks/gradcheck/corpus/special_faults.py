"""Faults that belong to one operation: the terms and cases that are really forgotten."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from benchmarks.gradcheck.corpus import losses, recurrent, spatial
from benchmarks.gradcheck.corpus.custom import Backward, Gradients

Kept = tuple[Tensor, ...]


def _transposed_twice(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    return g * (x @ weight) + (g * x) @ weight, x.T @ (g * x)


def _first_term_only(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    return (g * x) @ weight.T, x.T @ (g * x)


def _bias_averaged(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    return g @ weight, g.T @ x, g.mean(0)


def _step_at_one(saved: Kept, g: Tensor) -> Gradients:
    return (g * (saved[0] > 0.1),)


def _derivative_of_input(saved: Kept, g: Tensor) -> Gradients:
    return (g * (1 - saved[0].tanh() ** 2),)


def _second_term_lost(saved: Kept, g: Tensor) -> Gradients:
    return (g * saved[0].sigmoid(),)


def _of_the_tanh_form(saved: Kept, g: Tensor) -> Gradients:
    (x,) = saved
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        y = torch.nn.functional.gelu(leaf, approximate="tanh")
        return torch.autograd.grad(y, leaf, g)


def _density_without_half(saved: Kept, g: Tensor) -> Gradients:
    (x,) = saved
    density = torch.exp(-x * x) / math.sqrt(2 * math.pi)
    return (g * (0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density),)


def _slope_from_both_sides(saved: Kept, g: Tensor) -> Gradients:
    x, slope = saved
    return torch.where(x <= 0, g * slope, g), (g * x).sum(0)


def _diagonal_only(saved: Kept, g: Tensor) -> Gradients:
    (y,) = saved
    return (g * y * (1 - y),)


def _statistics_constant(saved: Kept, g: Tensor) -> Gradients:
    normal, inverse, weight = saved
    return inverse * g * weight, (g * normal).sum(0), g.sum(0)


def _variance_constant(saved: Kept, g: Tensor) -> Gradients:
    normal, inverse, weight = saved
    inner = g * weight
    return inverse * (inner - inner.mean(-1, keepdim=True)), (g * normal).sum(0), g.sum(0)


def _mean_constant(saved: Kept, g: Tensor) -> Gradients:
    normal, inverse, weight = saved
    inner = g * weight
    along = (inner * normal).mean(0)
    return inverse * (inner - normal * along), (g * normal).sum(0), g.sum(0)


def _scale_constant(saved: Kept, g: Tensor) -> Gradients:
    normal, inverse, weight = saved
    return inverse * g * weight, (g * normal).sum(0)


def _not_projected(saved: Kept, g: Tensor) -> Gradients:
    return (g / saved[1],)


def _forwards(saved: Kept, g: Tensor) -> Gradients:
    return (g.cumsum(-1),)


def _kernel_not_flipped(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    size = weight.shape[-1]
    back = conv1d(pad(g, (size - 1, size - 1)), weight.transpose(0, 1))
    return back, torch.einsum("bot,bitk->oik", g, x.unfold(-1, size, 1))


def _last_tap_lost(saved: Kept, g: Tensor) -> Gradients:
    back, weight = spatial.CONVOLUTION_2D[1](saved, g)
    assert weight is not None
    changed = weight.clone()
    changed[..., -1] = 0
    return back, changed


def _to_the_first(saved: Kept, g: Tensor) -> Gradients:
    _, x = saved
    back = torch.zeros_like(x).unflatten(-1, (-1, 2))
    back[..., 0] = g
    return (back.flatten(-2),)


def _not_divided(saved: Kept, g: Tensor) -> Gradients:
    return (g.repeat_interleave(2, -1),)


def _repeated_rows_overwritten(saved: Kept, g: Tensor) -> Gradients:
    x, weight = saved
    rows = torch.arange(len(x)) * 5 % 7
    back = torch.zeros_like(weight)
    for sample, row in enumerate(rows.tolist()):
        back[row] = (g * x)[sample]
    return g * weight[rows], back


def _scale_forgotten(saved: Kept, g: Tensor) -> Gradients:
    found = spatial.ATTENTION[1](saved, g)
    factor = saved[0].shape[-1] ** 0.5
    return found[0], *(factor * part for part in found[1:] if part is not None)


def _values_only(saved: Kept, g: Tensor) -> Gradients:
    _, query, key = spatial.ATTENTION[1](saved, g)
    return saved[3].transpose(-1, -2) @ g, query, key


def _turned_the_same_way(saved: Kept, g: Tensor) -> Gradients:
    return (spatial.ROTARY[0](g)[0],)


def _last_step_only(saved: Kept, g: Tensor) -> Gradients:
    _, *states = saved
    inner = g * (1 - states[-1].square())
    steps = torch.zeros(len(g), len(states) - 1, g.shape[-1], dtype=g.dtype)
    steps[:, -1] = inner
    return steps, states[-2].T @ inner


def _carry_lost(saved: Kept, g: Tensor) -> Gradients:
    steps, _ = recurrent.GATED[1](saved, g)
    _, x, gates, states = saved
    candidate = x[:, -1].tanh()
    inner = g * (states[-2] - candidate) * gates[-1] * (1 - gates[-1])
    return steps, states[-2].T @ inner


def _not_averaged(saved: Kept, g: Tensor) -> Gradients:
    (found,) = losses.CROSS_ENTROPY[1](saved, g)
    return (None if found is None else found * len(found),)


def _label_ignored(saved: Kept, g: Tensor) -> Gradients:
    (x,) = saved
    return (g * x.softmax(-1) / len(x),)


def _not_clipped(saved: Kept, g: Tensor) -> Gradients:
    (gap,) = saved
    return (g * gap / gap.numel(),)


def _rows_only(saved: Kept, g: Tensor) -> Gradients:
    x, scores = saved
    hot = torch.eye(len(x), dtype=x.dtype).roll(-1, -1)
    return (g * (scores.softmax(-1) - hot) / len(x) * 0.2 @ x,)


SPECIAL: tuple[tuple[str, str, Backward], ...] = (
    ("linear", "bias gradient averaged", _bias_averaged),
    ("bilinear", "one factor's gradient lost", _first_term_only),
    ("bilinear", "weight not transposed", _transposed_twice),
    ("relu", "kink at 0.1", _step_at_one),
    ("tanh", "derivative taken of the result", _derivative_of_input),
    ("silu", "second term lost", _second_term_lost),
    ("gelu", "derivative of the tanh form", _of_the_tanh_form),
    ("gelu", "density without one half", _density_without_half),
    ("prelu", "slope from both sides", _slope_from_both_sides),
    ("softmax", "diagonal of the Jacobian only", _diagonal_only),
    ("layer_norm", "statistics taken for constants", _statistics_constant),
    ("layer_norm", "variance taken for a constant", _variance_constant),
    ("batch_norm", "statistics taken for constants", _statistics_constant),
    ("batch_norm", "mean taken for a constant", _mean_constant),
    ("rms_norm", "scale taken for a constant", _scale_constant),
    ("unit_length", "not projected", _not_projected),
    ("running_sum", "summed from the wrong end", _forwards),
    ("convolution", "kernel not flipped", _kernel_not_flipped),
    ("convolution_2d", "last column of the kernel lost", _last_tap_lost),
    ("max_pool", "always to the first", _to_the_first),
    ("average_pool", "not divided", _not_divided),
    ("embedding", "repeated rows overwritten", _repeated_rows_overwritten),
    ("attention", "scale forgotten", _scale_forgotten),
    ("attention", "through the values only", _values_only),
    ("rotary", "turned the same way", _turned_the_same_way),
    ("recurrent_cell", "last step only", _last_step_only),
    ("gated_cell", "carry lost", _carry_lost),
    ("cross_entropy", "not averaged", _not_averaged),
    ("cross_entropy", "label ignored", _label_ignored),
    ("huber", "not clipped", _not_clipped),
    ("contrastive", "rows only", _rows_only),
)
