"""Lines through the space of the parameters, along which losses are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.branches import Branch, BranchWatch
from lightning_stab.functional.gradcheck.problem import Gradients, Problem

_SMALL = 100_000  # numbers that may be copied without a thought
_MOST_TENSORS = 32  # up to so many tensors, each gets its own directions
_NUM_GROUPS = 16
_SMALL_GROUP = 4  # tensors that share their further directions
_LARGEST_FACTOR = 30.0  # how far a tensor's direction is stretched to count within its group

Part = tuple[str, ...]
"""Names of the parameters that share a random direction: a tensor, a group, or the model."""


def flat_view(tensor: Tensor) -> Tensor:
    """Return the values as a flat real view; a complex number counts as two coordinates."""
    data = tensor.detach()
    return (torch.view_as_real(data.resolve_conj()) if data.is_complex() else data).view(-1)


@dataclass(frozen=True)
class Slope:
    """A gradient along a line.

    Args:
        value: the sum over all coordinates of gradient times direction.
        size: the root of the sum of squares of the same products, which no signs can cancel.
    """

    value: float
    size: float


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
            rows = problem.padding_rows(name)
            if rows:
                direction.view(len(problem.parameters[name]), -1)[rows] = 0.0
        self._at = 0.0
        moved = sum(direction.numel() for direction in self.directions.values())
        total = sum(flat_view(parameter).numel() for parameter in problem.parameters.values())
        self._origin: dict[str, Tensor] | None = None
        if 2 * moved <= total or total < _SMALL:
            self._origin = {n: flat_view(problem.parameters[n]).clone() for n in self.directions}

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *error: object) -> None:
        self._go(0.0)

    def losses_at(
        self,
        distance: float,
        *,
        replay: bool = True,
        watch: BranchWatch | None = None,
        branches: list[Branch] | None = None,
    ) -> list[float]:
        """Return the losses at a signed distance from the point; see `Problem.losses`."""
        self._go(distance)
        return self.problem.losses(replay=replay, watch=watch, branches=branches)

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


def line_through(
    problem: Problem, part: Part, gradients: Sequence[Gradients], generator: torch.Generator
) -> Line:
    """Return a random line through the part's tensors, stretched so that all weigh alike."""
    directions = {name: random_direction(problem.parameters[name], generator) for name in part}
    if len(part) > 1:
        sizes = {name: _size(name, directions[name], gradients) for name in part}
        nonzero = sorted(size for size in sizes.values() if size > 0)
        middle = nonzero[len(nonzero) // 2] if nonzero else 0.0
        for name, size in sizes.items():
            factor = middle / size if size > 0 else 1.0
            directions[name].mul_(min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR))
    return Line(problem, directions)


def _size(name: str, direction: Tensor, gradients: Sequence[Gradients]) -> float:
    found = [gradient.get(name) for gradient in gradients]
    flat = [flat_view(gradient.contiguous()) for gradient in found if gradient is not None]
    return max((float((g * direction).square().sum().sqrt()) for g in flat), default=0.0)


def largest_norm(name: str, gradients: Sequence[Gradients]) -> float:
    """Return the norm of the parameter's gradient, the largest over the losses."""
    found = [gradient.get(name) for gradient in gradients]
    return max((float(torch.linalg.vector_norm(g)) for g in found if g is not None), default=0.0)


def divide_into_parts(
    names: Sequence[str], gradients: Sequence[Gradients], mode: str
) -> list[Part]:
    """Divide the named parameters into parts, as ``mode`` asks.

    A part holds tensors that the same losses are for. A group holds tensors whose gradients are of
    like size, so that the error of none is below the noise of another. Besides the modes of a
    check there is ``"small group"``, for the further directions of tensors whose first was right.
    """
    kinds: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        kind = tuple(loss for loss, found in enumerate(gradients) if name in found)
        kinds.setdefault(kind, []).append(name)
    parts: list[Part] = []
    for members in kinds.values():
        size = _part_size(mode, len(members))
        if size > 1 and mode != "model":
            members.sort(key=lambda name: largest_norm(name, gradients))
        parts += [tuple(members[i : i + size]) for i in range(0, len(members), size)]
    return parts


def _part_size(mode: str, number: int) -> int:
    if mode == "model":
        return number
    if mode == "tensor" or (mode == "auto" and number <= _MOST_TENSORS):
        return 1
    return _SMALL_GROUP if mode == "small group" else max(2, -(-number // _NUM_GROUPS))


def halves(part: Part) -> tuple[Part, Part]:
    """Return the two halves of a part."""
    middle = len(part) // 2
    return part[:middle], part[middle:]
