"""The parts of a model that share a random direction: tensors, groups, or all of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_stab.functional.gradcheck.coordinates import flat_view
from lightning_stab.functional.gradcheck.lines import Line, random_direction
from lightning_stab.functional.gradcheck.problem import Gradients, Problem

_MOST_TENSORS = 32  # up to so many tensors, each gets its own directions
_NUM_GROUPS = 16
_COMPANY = 4  # tensors that share their further directions
_LARGEST_FACTOR = 30.0  # how far a tensor's direction is stretched to be heard in its group

Part = tuple[str, ...]


def parts_of(names: Sequence[str], gradients: Sequence[Gradients], mode: str) -> list[Part]:
    """Divide the named parameters into parts, as ``mode`` asks.

    A group holds tensors whose gradients are of like size, so that none drowns in another, and
    that the same losses are for.
    """
    kinds: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        kind = tuple(loss for loss, found in enumerate(gradients) if name in found)
        kinds.setdefault(kind, []).append(name)
    return [part for kind in kinds.values() for part in _divided(kind, gradients, mode)]


def _divided(names: Sequence[str], gradients: Sequence[Gradients], mode: str) -> list[Part]:
    if mode == "model":
        return [tuple(names)]
    if mode == "tensor" or (mode == "auto" and len(names) <= _MOST_TENSORS):
        return [(name,) for name in names]
    ordered = sorted(names, key=lambda name: largest_norm(name, gradients))
    size = max(2, -(-len(ordered) // _NUM_GROUPS))
    return [tuple(ordered[i : i + size]) for i in range(0, len(ordered), size)]


def small_groups(names: Sequence[str], gradients: Sequence[Gradients]) -> list[Part]:
    """Divide parameters whose first direction was right into groups for the further ones."""
    kinds = parts_of(names, gradients, "model")
    ordered = [sorted(kind, key=lambda name: largest_norm(name, gradients)) for kind in kinds]
    return [
        tuple(kind[i : i + _COMPANY]) for kind in ordered for i in range(0, len(kind), _COMPANY)
    ]


def halves(part: Part) -> tuple[Part, Part]:
    """Return the two halves of a part."""
    middle = len(part) // 2
    return part[:middle], part[middle:]


def largest_norm(name: str, gradients: Sequence[Gradients]) -> float:
    """Return the norm of the parameter's gradient, the largest over the losses."""
    found = [gradient.get(name) for gradient in gradients]
    return max((float(torch.linalg.vector_norm(g)) for g in found if g is not None), default=0.0)


def line_through(
    problem: Problem, part: Part, gradients: Sequence[Gradients], generator: torch.Generator
) -> Line:
    """Return a random line through the part's tensors, stretched so that all weigh alike."""
    directions = {name: random_direction(problem.parameters[name], generator) for name in part}
    if len(part) > 1:
        sizes = {name: _size(name, directions[name], gradients) for name in part}
        audible = sorted(size for size in sizes.values() if size > 0)
        middle = audible[len(audible) // 2] if audible else 0.0
        for name, size in sizes.items():
            factor = middle / size if size > 0 else 1.0
            directions[name].mul_(min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR))
    return Line(problem, directions)


def _size(name: str, direction: Tensor, gradients: Sequence[Gradients]) -> float:
    found = [gradient.get(name) for gradient in gradients]
    flat = [flat_view(gradient.contiguous()) for gradient in found if gradient is not None]
    return max((float((g * direction).square().sum().sqrt()) for g in flat), default=0.0)
