"""From a wrong direction to the worst coordinate on it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.coordinates import flat_view
from lightning_stab.functional.gradcheck.differences import central_difference
from lightning_stab.functional.gradcheck.lines import Line, Slope, one_coordinate
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.search import Judgements, Reference, check_line
from lightning_stab.functional.gradcheck.verdicts import Judgement


def worst_coordinate(
    problem: Problem,
    name: str,
    direction: Tensor,
    gradient: Tensor | None,
    loss: int,
    error: float,
    step: float,
) -> int:
    """Return the flat index at the end of the larger errors, halving the tensor each time.

    Args:
        problem: the losses.
        name: of the parameter.
        direction: flat, along which autograd was found wrong.
        gradient: what autograd says about the parameter.
        loss: which loss.
        error: numeric minus analytic derivative along the whole direction.
        step: the step at which it was found.
    """
    flat = None if gradient is None else flat_view(gradient.contiguous())
    low, high = 0, direction.numel()
    while high - low > 1:
        middle = (low + high) // 2
        half = torch.zeros_like(direction)
        half[low:middle] = direction[low:middle]
        with Line(problem, {name: half}) as line:
            plus, minus = line.losses_at(step)[loss], line.losses_at(-step)[loss]
        analytic = 0.0 if flat is None else float((flat * half).sum())
        left = central_difference(plus, minus, step) - analytic
        if abs(left) >= abs(error - left):
            high, error = middle, left
        else:
            low, error = middle, error - left
    return low


def check_coordinate(
    problem: Problem,
    name: str,
    index: int,
    gradients: Mapping[int, Tensor | None],
    reference: Reference,
) -> Judgements:
    """Judge autograd's derivative of each loss by one coordinate, in the coordinate's own unit.

    The error is relative to max(|numeric|, |analytic|, the RMS of the tensor's gradient).
    """
    direction = one_coordinate(problem.parameters[name], index)
    length = float(direction[index])
    slopes = {}
    for loss, gradient in gradients.items():
        flat = None if gradient is None else flat_view(gradient.contiguous())
        value = 0.0 if flat is None else float(flat[index])
        size = 0.0 if flat is None else float(flat.square().mean().sqrt())
        slopes[loss] = Slope(value * length, size * length)
    found = check_line(Line(problem, {name: direction}), slopes, reference)
    return {
        loss: Judgement(
            j.verdict, j.analytic / length, j.numeric / length, j.error, j.step * length
        )
        for loss, j in found.items()
    }
