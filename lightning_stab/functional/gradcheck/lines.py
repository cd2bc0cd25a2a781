"""Lines through the space of the parameters, along which losses are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.branches import Branches
from lightning_stab.functional.gradcheck.coordinates import flat_view
from lightning_stab.functional.gradcheck.frozen import Held
from lightning_stab.functional.gradcheck.problem import Gradients, Problem

_SMALL = 100_000  # numbers that may be copied without a thought


class Line:
    """A straight line through the current point, as a context manager that comes back to it.

    Args:
        problem: the losses and the parameters that move.
        directions: flat real directions by parameter name; others stay.
    """

    def __init__(self, problem: Problem, directions: Mapping[str, Tensor]) -> None:
        self.problem = problem
        self.directions = dict(directions)
        for name, direction in self.directions.items():
            rows = problem.frozen_rows(name)
            if rows:
                direction.view(len(problem.parameters[name]), -1)[rows] = 0.0
        self._at = 0.0
        moved = sum(direction.numel() for direction in self.directions.values())
        total = sum(flat_view(parameter).numel() for parameter in problem.parameters.values())
        self._origin = self._copies() if 2 * moved <= total or total < _SMALL else None

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._go(0.0)

    def losses_at(
        self,
        distance: float,
        *,
        replay: bool = True,
        branches: Branches | None = None,
        held: list[Held] | None = None,
    ) -> list[float]:
        """Return the losses at a signed distance from the point."""
        self._go(distance)
        return self.problem.losses(replay=replay, branches=branches, held=held)

    def slopes(self, gradients: Sequence[Gradients]) -> dict[int, Slope]:
        """Return what each loss's gradient says about this line, by the loss's number.

        A loss that is not for these parameters, as under several optimizers, says nothing.
        """
        return {
            loss: self._slope(found)
            for loss, found in enumerate(gradients)
            if self.directions.keys() <= found.keys()
        }

    def _slope(self, gradients: Gradients) -> Slope:
        total = square = 0.0
        for name, direction in self.directions.items():
            gradient = gradients[name]
            if gradient is not None:
                product = flat_view(gradient.contiguous()) * direction
                total += float(product.sum())
                square += float(product.square().sum())
        return Slope(total, square**0.5)

    def _copies(self) -> dict[str, Tensor]:
        return {name: flat_view(self.problem.parameters[name]).clone() for name in self.directions}

    @torch.no_grad()
    def _go(self, distance: float) -> None:
        """Move, from a copy of the origin if it is small, else by the difference.

        By the difference, rounding leaves the point off by a unit in the last place, which matters
        on an exact kink only; and a large model's parameters are not copied once more.
        """
        if distance == self._at:
            return
        if self._origin is not None:
            for name, origin in self._origin.items():
                flat_view(self.problem.parameters[name]).copy_(origin)
            self._at = 0.0
        for name, direction in self.directions.items() if distance != self._at else ():
            flat_view(self.problem.parameters[name]).add_(direction, alpha=distance - self._at)
        self._at = distance
        self.problem.keep_point()


@dataclass(frozen=True)
class Slope:
    """A gradient along a line.

    Args:
        value: the sum over all coordinates of gradient times direction.
        size: the root of the sum of squares of the same products, which no signs can cancel.
    """

    value: float
    size: float


def random_direction(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Return a flat direction: random signs times U[0.5, 1.5] times the root mean square.

    Unequal sizes, because two swapped entries of a gradient cancel along equal ones.
    """
    values = flat_view(parameter)
    if values.numel() == 0:
        return torch.zeros(0)
    size = float(values.square().mean().sqrt()) or 1.0
    sizes = torch.rand(values.shape, generator=generator, dtype=torch.float32).add_(0.5)
    signs = torch.randint(0, 2, values.shape, generator=generator, dtype=torch.int8)
    return sizes.mul_(signs.mul_(2).sub_(1)).mul_(size).to(values.device)


def one_coordinate(parameter: Tensor, index: int) -> Tensor:
    """Return the direction of one coordinate, as long as the tensor's root mean square."""
    values = flat_view(parameter)
    direction = torch.zeros(values.shape, dtype=torch.float32, device=values.device)
    direction[index] = float(values.square().mean().sqrt()) or 1.0
    return direction
