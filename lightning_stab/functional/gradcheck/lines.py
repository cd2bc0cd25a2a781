"""The point at which gradients are checked, and the lines through it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.branches import Branch, BranchWatch
from lightning_stab.functional.gradcheck.differences import NUM_VALUES, estimate_noise
from lightning_stab.functional.gradcheck.problem import Gradients, Problem

MOVES = (0.05, 0.005, 0.0)
"""Distances to move, relative to each tensor's root mean square; smaller if a loss overflows."""

_REPEATABLE = 1e-11  # relative difference of two runs that counts as rounding
_SAME_GRADIENT = 1e-9  # relative difference of two gradients that counts as rounding
_ROUNDED_OFF = 1e-12  # the same, of what gradients do over a weight's size, relative to the largest
_MORE_CALLS = 2  # of a backward pass, that go on from the state of the call before
_SPACING = 1e-12  # of the points at which noise is measured
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
    """A line along flat real directions by parameter name; as a context manager it comes back."""

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
        slopes = {}
        for loss, found in enumerate(gradients):
            if self.directions.keys() <= found.keys():
                total = square = 0.0
                for name, direction in self.directions.items():
                    gradient = found[name]
                    if gradient is not None:
                        weighted = flat_view(gradient.contiguous()) * direction
                        total += float(weighted.sum())
                        square += float(weighted.square().sum())
                slopes[loss] = Slope(total, square**0.5)
        return slopes

    @torch.no_grad()
    def _go(self, distance: float) -> None:
        """Move, from a copy of the origin if it is small, else by the difference, which rounds."""
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
        sizes = {}
        for name in part:
            found = [each.get(name) for each in gradients]
            flat = [flat_view(g.contiguous()) for g in found if g is not None]
            norms = [float((g * directions[name]).square().sum().sqrt()) for g in flat]
            sizes[name] = max(norms, default=0.0)
        nonzero = sorted(size for size in sizes.values() if size > 0)
        middle = nonzero[len(nonzero) // 2] if nonzero else 0.0
        for name, size in sizes.items():
            factor = middle / size if size > 0 else 1.0
            directions[name].mul_(min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR))
    return Line(problem, directions)


def largest_norm(name: str, gradients: Sequence[Gradients]) -> float:
    """Return the norm of the parameter's gradient, the largest over the losses."""
    found = [gradient.get(name) for gradient in gradients]
    return max((float(torch.linalg.vector_norm(g)) for g in found if g is not None), default=0.0)


def divide_into_parts(
    names: Sequence[str], gradients: Sequence[Gradients], mode: str
) -> list[Part]:
    """Divide parameters by the losses that are for them, and, as ``mode`` asks, by their size.

    A group's gradients are of like size, so that the error of none is below the noise of another;
    ``"small group"`` is for the further directions of tensors whose first was right.
    """
    kinds: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        kind = tuple(loss for loss, found in enumerate(gradients) if name in found)
        kinds.setdefault(kind, []).append(name)
    parts: list[Part] = []
    for members in kinds.values():
        size = number = len(members)
        if mode == "tensor" or (mode == "auto" and number <= _MOST_TENSORS):
            size = 1
        elif mode != "model":
            size = _SMALL_GROUP if mode == "small group" else max(2, -(-number // _NUM_GROUPS))
            members.sort(key=lambda name: largest_norm(name, gradients))
        parts += [tuple(members[i : i + size]) for i in range(0, len(members), size)]
    return parts


@dataclass
class Point:
    """A point, the value of each loss there, and autograd's gradient of each.

    Args:
        noise: the rounding error of a loss.
        unrepeatable: by how much gradients differ from run to run, by the parameter's name.
        repeatable: False when the losses differ from run to run.
        branches: the branches taken there, to be replayed, if there are any.
        branch_sums: the check sums of these branches, once they were watched.
        rounded: whether ``noise`` counts the rounding of each operation, too.
    """

    losses: list[float]
    gradients: list[Gradients]
    noise: float = 0.0
    unrepeatable: dict[str, float] = field(default_factory=dict)
    repeatable: bool = True
    branches: list[Branch] | None = None
    branch_sums: list[int] | None = None
    rounded: bool = False

    def raise_noise(self, problem: Problem) -> bool:
        """Measure the noise a second way, once, before anything is called wrong; say if it rose."""
        if self.rounded:
            return False
        self.rounded, known = True, self.noise
        try:
            found = problem.rounding_noise(self.branches)
        except Exception:  # a step may refuse numbers that are changed in their last digit
            return False
        self.noise = max(known, *found, 0.0)
        return self.noise > known

    @property
    def finite(self) -> bool:
        """Whether there is a loss, and every loss is a finite number."""
        return bool(self.losses) and all(map(math.isfinite, self.losses))


def find_point(
    problem: Problem, generator: torch.Generator, moves: Sequence[float] = MOVES
) -> Point:
    """Move the parameters, and return losses, gradients and noise where they are then.

    At the initial point a zero-initialised head or gate hides every fault behind it, and a
    regular start may sit exactly on a kink. An all-zero tensor moves by the distance itself.
    """
    start = {name: p.detach().clone() for name, p in problem.parameters.items()}
    point = Point([], [])
    for distance in moves:
        for name, parameter in problem.parameters.items():
            parameter.data.copy_(start[name])
            values = flat_view(parameter)
            if values.numel() > 0:
                size = float(values.square().mean().sqrt()) or 1.0
                noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
                values.add_(noise.to(values.device), alpha=distance * size)
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
    """Run forward and backward again: anything that changes cannot be checked.

    First from the same state, then going on from there as a fit does: a backward may be wrong at
    every second call. There a step that is another one, by its losses, says nothing.
    """
    losses, gradients = problem.gradients()
    point.repeatable = _agree(losses, point.losses)
    if not point.repeatable:
        return
    _note_gaps(problem, point, gradients)
    for _ in range(_MORE_CALLS):
        del losses, gradients  # of the size of the module
        try:
            losses, gradients = problem.gradients(restore=False)
        except Exception:  # a step that cannot go on will say so in the fit
            return
        if _agree(losses, point.losses):
            _note_gaps(problem, point, gradients)


def _agree(losses: Sequence[float], others: Sequence[float]) -> bool:
    sizes = [max(abs(a), abs(b), 1e-300) for a, b in zip(losses, others, strict=False)]
    pairs = zip(losses, others, sizes, strict=False)
    return len(losses) == len(others) and all(abs(a - b) <= _REPEATABLE * c for a, b, c in pairs)


def _note_gaps(problem: Problem, point: Point, gradients: Sequence[Gradients]) -> None:
    """Note by how much gradients differ from those of the point, which is subtracted from them.

    A difference below the rounding error of the largest gradient does not count: a gradient that
    cancels to zero, as before a normalisation, is nothing but rounding.
    """
    sizes = {
        name: float(torch.linalg.vector_norm(parameter)) / max(1, parameter.numel()) ** 0.5 or 1.0
        for name, parameter in problem.parameters.items()
    }
    largest = max((largest_norm(n, point.gradients) * size for n, size in sizes.items()), default=0)
    for first, second in zip(point.gradients, gradients, strict=True):
        for name in first.keys() & second.keys():
            one, other = first[name], second[name]
            norm = 1.0 if one is None else float(torch.linalg.vector_norm(one))
            gap = _distance(one, other)
            if gap > _SAME_GRADIENT * norm and gap * sizes[name] > _ROUNDED_OFF * largest:
                known = point.unrepeatable.get(name, 0.0)
                point.unrepeatable[name] = max(known, gap / max(norm, gap))


def _distance(one: Tensor | None, other: Tensor | None) -> float:
    """Return the norm of the difference, which may be put in the place of ``other``."""
    if one is None or other is None:
        return float(one is not other)
    try:
        other.sub_(one)  # without a third tensor of the size
    except RuntimeError:  # a zero that autograd made without memory cannot be written to
        other = other - one
    return float(torch.linalg.vector_norm(other))


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
