"""The point at which gradients are checked, and what is known about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.branches import Branch
from lightning_stab.functional.gradcheck.differences import NUM_VALUES, estimate_noise
from lightning_stab.functional.gradcheck.lines import Line, flat_view, random_direction
from lightning_stab.functional.gradcheck.problem import Gradients, Problem

MOVES = (0.05, 0.005, 0.0)
"""Distances to move, relative to each tensor's root mean square; smaller if a loss overflows."""

_REPEATABLE = 1e-11  # relative difference of two runs that counts as rounding
_SPACING = 1e-12  # of the points at which noise is measured


@dataclass
class Point:
    """A point, its losses and gradients.

    Args:
        losses: the value of each loss.
        gradients: autograd's gradient of each loss.
        noise: the rounding error of a loss.
        unrepeatable: names of parameters whose gradient differs from run to run.
        repeatable: False when the losses differ from run to run.
        branches: the branches taken there, to be replayed, if there are any.
        branch_sums: the check sums of these branches, once they were watched.
    """

    losses: list[float]
    gradients: list[Gradients]
    noise: float = 0.0
    unrepeatable: frozenset[str] = frozenset()
    repeatable: bool = True
    branches: list[Branch] | None = None
    branch_sums: list[int] | None = None

    @property
    def finite(self) -> bool:
        """Whether there is a loss, and every loss is a finite number."""
        return bool(self.losses) and all(map(math.isfinite, self.losses))


@torch.no_grad()
def move_(parameters: Iterable[Tensor], generator: torch.Generator, distance: float) -> None:
    """Move each parameter in place by about ``distance`` of its root mean square.

    At the initial point a zero-initialised head or gate hides every fault behind it, and a
    regular start may sit exactly on a kink. An all-zero tensor moves by ``distance`` itself.
    """
    for parameter in parameters:
        values = flat_view(parameter)
        if values.numel() == 0:
            continue
        size = float(values.square().mean().sqrt()) or 1.0
        noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        values.add_(noise.to(values.device), alpha=distance * size)


def find_point(
    problem: Problem, generator: torch.Generator, moves: Sequence[float] = MOVES
) -> Point:
    """Move the parameters, and return losses, gradients and noise where they are then."""
    start = {name: p.detach().clone() for name, p in problem.parameters.items()}
    point = Point([], [])
    for distance in moves:
        for name, parameter in problem.parameters.items():
            parameter.data.copy_(start[name])
        move_(problem.parameters.values(), generator, distance)
        point.losses = problem.settle()
        if point.finite:
            break
    start.clear()
    if point.finite:
        point.losses, point.gradients = problem.gradients(record=True)
    if point.finite:
        _repeat(problem, point)
    if point.finite and point.repeatable:
        problem.allow_no_graph(point.losses)
        replayed = problem.losses()
        point.repeatable = len(replayed) == len(point.losses)
        if point.repeatable:
            point.losses = replayed
            point.noise = _measure_noise(problem, point, generator)
            point.branches = problem.record_branches()
    return point


def _repeat(problem: Problem, point: Point) -> None:
    """Run forward and backward once more: anything that changes cannot be checked."""
    losses, gradients = problem.gradients()
    drift = max(
        (abs(a - b) / max(abs(a), abs(b), 1e-300)
         for a, b in zip(losses, point.losses, strict=False)),
        default=0.0,
    )  # fmt: skip
    point.repeatable = len(losses) == len(point.losses) and drift <= _REPEATABLE
    point.unrepeatable = frozenset(
        name
        for first, second in zip(point.gradients, gradients, strict=False)
        for name in first
        if not _same(first[name], second.get(name))
    )


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    gap = float(torch.linalg.vector_norm(second.sub_(first)))  # no third tensor of the size
    return gap <= 1e-9 * float(torch.linalg.vector_norm(first)) or gap != gap


def _measure_noise(problem: Problem, point: Point, generator: torch.Generator) -> float:
    """Return the noise of the losses at points so near that they should not differ."""
    smallest = sorted(problem.parameters, key=lambda name: problem.parameters[name].numel())
    few = smallest[: max(1, len(smallest) // 2)]
    directions = {n: random_direction(problem.parameters[n], generator) for n in few}
    with Line(problem, directions) as line:
        values = [line.losses_at(_SPACING * k) for k in range(NUM_VALUES)]
    if any(len(row) != len(point.losses) for row in values):
        return 0.0
    return max(estimate_noise(column) for column in zip(*values, strict=True))
