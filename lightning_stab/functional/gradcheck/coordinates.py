"""The lesson's plain formula, one coordinate after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.differences import LADDER, Difference, difference
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.verdicts import Judgement, judge


def flat_view(tensor: Tensor) -> Tensor:
    """Return the values as a flat real view; a complex number counts as two coordinates."""
    data = tensor.detach()
    return (torch.view_as_real(data) if data.is_complex() else data).view(-1)


def sampled_coordinates(size: int, number: int | None, generator: torch.Generator) -> list[int]:
    """Return ``number`` different indices below ``size`` in rising order, or all of them."""
    if number is None or number >= size:
        return list(range(size))
    return sorted(torch.randperm(size, generator=generator)[:number].tolist())


def unravelled(index: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the place in a tensor of ``shape`` of a flat ``index``.

    Example:
        >>> unravelled(5, (2, 3))
        (1, 2)
    """
    place: list[int] = []
    for size in reversed(shape):
        index, rest = divmod(index, size)
        place.append(rest)
    return tuple(reversed(place))


def coordinate_differences(
    problem: Problem,
    parameter: Tensor,
    index: int,
    here: Sequence[float],
    noise: float,
    step: float,
) -> list[Difference]:
    """Return the derivative of each loss by one coordinate, at one step size."""
    values = flat_view(parameter)
    origin = float(values[index])

    def losses_at(distance: float) -> list[float]:
        values[index] = origin + distance
        return problem.losses()

    try:
        return difference(losses_at, here, step, noise)
    finally:
        values[index] = origin


def check_coordinate(
    problem: Problem,
    parameter: Tensor,
    index: int,
    analytic: Sequence[float],
    scales: Sequence[float],
    here: Sequence[float],
    noise: float,
) -> list[Judgement]:
    """Judge autograd's derivative of each loss by one coordinate.

    The steps get smaller until the judgement is ``ok`` for every loss.

    Args:
        problem: the losses.
        parameter: the tensor that holds the coordinate.
        index: the flat index of the coordinate.
        analytic: autograd's derivative of each loss.
        scales: the gradient's RMS over the tensor, for each loss.
        here: the losses at the unperturbed point.
        noise: the absolute rounding error of a loss.
    """
    size = float(flat_view(parameter).square().mean().sqrt()) or 1.0
    history: list[list[Difference]] = [[] for _ in here]
    judgements: list[Judgement] = []
    for relative in LADDER:
        found = coordinate_differences(
            problem, parameter, index, here, noise, relative * max(size, 1e-3)
        )
        for differences, new in zip(history, found, strict=True):
            differences.append(new)
        judgements = list(map(judge, history, analytic, scales))
        if all(judgement.verdict == "ok" for judgement in judgements):
            break
    return judgements
