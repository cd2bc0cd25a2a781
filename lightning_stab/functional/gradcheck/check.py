"""The check of a whole problem: its settings, point, parts, verdicts, and who is to blame."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from lightning_stab.arguments import check_choices, integer, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.autograd_graph import CustomNode, custom_nodes
from lightning_stab.functional.gradcheck.custom_functions import note_low_precision, watch_functions
from lightning_stab.functional.gradcheck.examination import Examination
from lightning_stab.functional.gradcheck.lines import (
    MOVES,
    divide_into_parts,
    find_point,
    largest_norm,
)
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.report import GradientReport, ParameterRecord
from lightning_stab.functional.gradcheck.verdicts import TOLERANCE

_MOST_CALLS = 12  # of one class that are tried alone
Mode = Literal["auto", "tensor", "group", "model"]
MODES: tuple[Mode, ...] = get_args(Mode)
_NOT_REPEATABLE = (
    "Two runs from the same state, with the same random numbers, gave different losses "
    "or did different operations. "
    "Draw random numbers from torch's, NumPy's or Python's global generators to have them checked."
)


@dataclass(frozen=True)
class CheckSettings:
    """The settings of a gradient check, validated.

    Args:
        mode: what one random direction spans: each ``"tensor"``, a ``"group"`` of tensors with
            gradients of like size, or the whole ``"model"``; ``"auto"`` takes tensors for up to
            32 of them, and groups beyond.
        coordinates: None for random directions; a number of sampled coordinates of each tensor,
            or ``"all"`` of them, for the plain formula one coordinate after another.
        num_directions: how many directions each part gets; one may miss a fault by chance.
        tolerance: the largest relative error of a right gradient.
        seed: of the private generator.

    Raises:
        InvalidArgumentError: for an unknown mode, or a number out of range.

    Example:
        >>> CheckSettings(mode="model").num_directions
        2
    """

    mode: Mode = "auto"
    coordinates: int | Literal["all"] | None = None
    num_directions: int = 2
    tolerance: float = TOLERANCE
    seed: int = 0

    def __post_init__(self) -> None:
        integer("num_directions", self.num_directions, minimum=1)
        integer("seed", self.seed, minimum=0)
        real("tolerance", self.tolerance, minimum=1e-10, maximum=1e-2)
        if isinstance(self.coordinates, int):
            integer("coordinates", self.coordinates, minimum=1)
        elif self.coordinates not in (None, "all"):
            raise InvalidArgumentError(
                f'`coordinates` must be "all", an integer >= 1 or None, got {self.coordinates!r}. '
                "Leave it out for random directions, which find more in less time."
            )
        check_choices(self)


def check_problem(problem: Problem, settings: CheckSettings | None = None) -> GradientReport:
    """Compare autograd's gradients with central differences and report on every parameter.

    Args:
        problem: the losses of a step; its parameters are moved, perturbed and left there.
        settings: how to go about it.
    """
    settings = settings or CheckSettings()
    start = time.perf_counter()
    with warnings.catch_warnings(), watch_functions(problem.depth), problem.classes:
        warnings.simplefilter("ignore")  # the module has its own say in the real run
        records, notes, made = _check(problem, settings)
    return GradientReport(
        tuple(records),
        notes=tuple(notes),
        num_forwards=problem.num_forwards,
        num_backwards=problem.num_backwards,
        seconds=time.perf_counter() - start,
        skipped=not made,
    )


def _check(
    problem: Problem, settings: CheckSettings
) -> tuple[list[ParameterRecord], list[str], bool]:
    """Return the records, notes, and whether there was a check at all."""
    if not problem.parameters:
        return [], ["The module has no trainable parameter."], True
    examination = _examine(problem, settings, MOVES)
    if not examination.point.finite:
        note = "The step gave no finite loss, so there is nothing to differentiate."
        return [], [note], False
    if not examination.point.repeatable:
        for name in problem.parameters:
            examination.note(name, "nondeterministic")
        return examination.in_order(), [_NOT_REPEATABLE], False
    notes = _find_causes(examination, settings) if problem.depth.called else []
    notes += problem.notes
    places = problem.detached.places()
    if places:
        shown = "; ".join(places[:8]) + ("; ..." if len(places) > 8 else "")
        notes.append(f"Taken for constants, as autograd does: {shown}.")
    return examination.in_order(), notes, True


def _examine(problem: Problem, settings: CheckSettings, moves: tuple[float, ...]) -> Examination:
    """Find a point and examine all parameters there, if the losses are finite and repeat."""
    generator = torch.Generator().manual_seed(settings.seed)
    point = find_point(problem, generator, moves)
    examination = Examination(problem, point, settings.tolerance, generator)
    if not (point.finite and point.repeatable):
        return examination
    asked = {name for found in point.gradients for name in found}
    names = [n for n in problem.parameters if n in asked and n not in point.unrepeatable]
    for name in problem.parameters.keys() - asked:
        examination.note(name, "unused", "No loss of this step is for this parameter.")
    for name, gap in point.unrepeatable.items():
        note = f"Backward passes of the same loss gave gradients that differ by {gap:.1e}."
        examination.note(name, "nondeterministic", note, gap)
    if settings.coordinates is None:
        _examine_directions(examination, names, settings)
        return examination
    for name in names:
        number = settings.coordinates if isinstance(settings.coordinates, int) else None
        examination.examine_coordinates(name, number)
    return examination


def _examine_directions(
    examination: Examination, names: list[str], settings: CheckSettings
) -> None:
    gradients, num_directions = examination.point.gradients, settings.num_directions
    norms = {name: largest_norm(name, gradients) for name in names}
    nonzero = [name for name in names if norms[name] != 0.0]
    zero_gradient = [name for name in names if norms[name] == 0.0]
    parts = divide_into_parts(nonzero, gradients, settings.mode)
    if any(len(part) > 1 for part in parts):
        for part in parts:
            examination.examine_part(part, num_directions)
    else:  # each tensor gets a direction of its own, and shares further ones
        for name in nonzero:
            examination.examine_part((name,), 1)
        right = [n for n in nonzero if examination.records[n].verdict in ("ok", "zero")]
        for part in divide_into_parts(right, gradients, "small group"):
            examination.examine_part(part, num_directions - 1)
    for part in divide_into_parts(zero_gradient, gradients, "model"):
        examination.examine_zero_gradients(part)


def _find_causes(examination: Examination, settings: CheckSettings) -> list[str]:
    """Name the Functions that are wrong, and those whose backward leaves double precision."""
    problem, records = examination.problem, examination.records
    calls, nodes = _record_calls(problem)
    with note_low_precision(list({node.function for node in nodes})) as noted:
        problem.gradients()
    for node in nodes:  # no gradient that comes through them can be better than they are
        if node.name in noted:
            for name in node.parameters:
                examination.limit_precision(name, node.name, noted[node.name])
    wrong = [name for name, record in records.items() if record.verdict == "wrong"]
    if wrong:
        right = {name for name, record in records.items() if record.verdict == "ok"}
        quick = CheckSettings(tolerance=settings.tolerance, seed=settings.seed)
        errors = {
            function: max(_error_alone(function, each, problem, quick) for each in given)
            for function, given in calls.items()
        }
        for name in wrong:
            suspect = _suspect(name, nodes, errors, right)
            records[name] = replace(records[name], function=suspect)
    return [f"{name}.backward leaves double precision ({how})." for name, how in noted.items()]


def _record_calls(problem: Problem) -> tuple[dict[type, list[tuple[Any, ...]]], list[CustomNode]]:
    """Return the arguments of the first custom calls by their class, and all nodes of the graph."""
    calls: dict[type, list[tuple[Any, ...]]] = {}
    nodes: list[CustomNode] = []
    names = {id(parameter): name for name, parameter in problem.parameters.items()}

    def as_leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)

    def visit(function: type, arguments: tuple[Any, ...]) -> None:
        given = calls.setdefault(function, [])
        if len(given) < _MOST_CALLS:
            given.append(tree_map_only(Tensor, as_leaf, arguments))

    problem.depth.visit = visit
    try:
        problem.run(lambda loss: nodes.extend(custom_nodes(loss, names)), replay=False)
    finally:
        problem.depth.visit = None
    return calls, nodes


def _suspect(
    name: str, nodes: Sequence[CustomNode], errors: dict[type, float], right: set[str]
) -> str | None:
    """Return the Function between a wrong parameter and the loss that is the cause, if any.

    The one that fails worst alone. If none does (a fault of caching, or of writing in place), the
    nearest whose every parameter is wrong too, and else the nearest.
    """
    way = sorted((n for n in nodes if name in n.parameters), key=lambda node: -node.distance)
    failing = [node for node in way if errors.get(node.function, 0.0) > 0]
    if failing:
        return max(failing, key=lambda node: errors[node.function]).name
    nearest = [node for node in way if not node.parameters & right] or way
    return nearest[0].name if nearest else None


def _error_alone(
    function: type, given: tuple[Any, ...], problem: Problem, settings: CheckSettings
) -> float:
    """Check one call alone, at the very inputs that it had."""
    try:
        records = _examine(_single_call(function, given, problem), settings, (0.0,)).records
    except Exception:  # a Function that cannot run alone stays unsuspected
        return 0.0
    return max((r.relative_error for r in records.values() if r.verdict == "wrong"), default=0.0)


def _single_call(function: Any, given: tuple[Any, ...], problem: Problem) -> Problem:
    """Return one call of a Function as a problem whose parameters are its differentiable inputs."""
    leaves = [a for a in given if isinstance(a, Tensor) and a.requires_grad]
    holder = nn.ParameterList(nn.Parameter(leaf.detach().clone()) for leaf in leaves)
    order = {id(leaf): index for index, leaf in enumerate(leaves)}

    def program(on_loss: Callable[[Tensor], None]) -> None:
        inputs = [
            holder[order[id(a)]] * 1.0 if id(a) in order else tree_map_only(Tensor, torch.clone, a)
            for a in given
        ]
        on_loss(_weighted_sum(function.apply(*inputs)))

    return Problem(holder, program, depth=problem.depth)


def _weighted_sum(result: Any) -> Tensor:
    """Return the sum of all differentiable results, each entry with its own fixed weight."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for tensor in tree_flatten(result)[0]:
        if isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex()):
            values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
            weights = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            total = total + (weights.to(values.device) * values).sum()
    return total
