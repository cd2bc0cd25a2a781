"""The check of a whole problem, parameter by parameter."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.coordinates import (
    check_coordinate,
    flat_view,
    sampled_coordinates,
    unravelled,
)
from lightning_stab.functional.gradcheck.point import move_
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.report import GradientReport, ParameterRecord
from lightning_stab.functional.gradcheck.verdicts import VERDICTS, Judgement

_ROUNDING = 4 * torch.finfo(torch.float64).eps


def check_problem(problem: Problem, *, num_coordinates: int | None, seed: int) -> GradientReport:
    """Compare autograd's gradient with central differences on sampled coordinates.

    Args:
        problem: the losses of a step; its parameters are moved, perturbed and left there.
        num_coordinates: how many coordinates of each parameter; None for all of them.
        seed: of the private generator that draws the point and the coordinates.
    """
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    move_(problem.parameters.values(), generator)
    gradients = problem.gradients()
    here = problem.losses()
    noise = _ROUNDING * max((abs(value) for value in here), default=0.0)
    records = []
    for name, parameter in problem.parameters.items():
        chosen = sampled_coordinates(flat_view(parameter).numel(), num_coordinates, generator)
        records.append(_check_parameter(problem, name, gradients, chosen, here, noise))
    return GradientReport(
        tuple(records),
        num_forwards=problem.num_forwards,
        num_backwards=problem.num_backwards,
        seconds=time.perf_counter() - start,
    )


def _check_parameter(
    problem: Problem,
    name: str,
    gradients: list[dict[str, Tensor | None]],
    chosen: list[int],
    here: list[float],
    noise: float,
) -> ParameterRecord:
    parameter = problem.parameters[name]
    flat = [_flat_gradient(found[name], parameter) for found in gradients]
    scales = [_root_mean_square(values) for values in flat]
    worst: tuple[Judgement, int, int] | None = None
    for index in chosen:
        analytic = [float(values[index]) for values in flat]
        found = check_coordinate(problem, parameter, index, analytic, scales, here, noise)
        for loss, judgement in enumerate(found):
            if worst is None or _badness(judgement) > _badness(worst[0]):
                worst = judgement, index, loss
    shape = tuple(parameter.shape)
    connected = any(found[name] is not None for found in gradients)
    if worst is None:
        return ParameterRecord(name, "zero" if connected else "unused", shape)
    judgement, index, loss = worst
    verdict = judgement.verdict
    if verdict == "ok" and not any(scales):
        verdict = "zero" if connected else "unused"
    return ParameterRecord(
        name,
        verdict,
        shape,
        judgement.error,
        unravelled(index, (*shape, 2) if parameter.is_complex() else shape),
        judgement.analytic,
        judgement.numeric,
        judgement.step,
        loss=loss,
    )


def _badness(judgement: Judgement) -> tuple[int, float]:
    return -VERDICTS.index(judgement.verdict), judgement.error


def _flat_gradient(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    if gradient is None:
        return torch.zeros_like(flat_view(parameter))
    return flat_view(gradient.contiguous())


def _root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0
