"""The check of a whole problem: its settings, point, parts, verdicts, suspects."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace

import torch

from lightning_stab.arguments import integer, one_of, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.gradcheck.custom_functions import note_low_precision, watch_functions
from lightning_stab.functional.gradcheck.examination import Examination
from lightning_stab.functional.gradcheck.lines import divide_into_parts, largest_norm
from lightning_stab.functional.gradcheck.point import MOVES, find_point
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.report import GradientReport, ParameterRecord
from lightning_stab.functional.gradcheck.suspects import find_suspects, record_calls
from lightning_stab.functional.gradcheck.verdicts import TOLERANCE

MODES = ("auto", "tensor", "group", "model")
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

    mode: str = "auto"
    coordinates: int | str | None = None
    num_directions: int = 2
    tolerance: float = TOLERANCE
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("mode", self.mode, MODES)
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


def check_problem(problem: Problem, settings: CheckSettings | None = None) -> GradientReport:
    """Compare autograd's gradients with central differences and report on every parameter.

    Args:
        problem: the losses of a step; its parameters are moved, perturbed and left there.
        settings: how to go about it.
    """
    settings = settings or CheckSettings()
    start = time.perf_counter()
    with warnings.catch_warnings(), watch_functions(problem.depth):
        warnings.simplefilter("ignore")  # the module has its own say in the real run
        records, notes = _check(problem, settings)
    return GradientReport(
        tuple(records),
        notes=tuple(notes),
        num_forwards=problem.num_forwards,
        num_backwards=problem.num_backwards,
        seconds=time.perf_counter() - start,
        skipped=not records and bool(problem.parameters),
    )


def _check(problem: Problem, settings: CheckSettings) -> tuple[list[ParameterRecord], list[str]]:
    if not problem.parameters:
        return [], ["The module has no trainable parameter."]
    examination = _examine(problem, settings, MOVES)
    if not examination.point.finite:
        return [], ["The step gave no finite loss, so there is nothing to differentiate."]
    if not examination.point.repeatable:
        for name in problem.parameters:
            examination.note(name, "nondeterministic")
        return examination.in_order(), [_NOT_REPEATABLE]
    notes = _find_causes(examination, settings) if problem.depth.called else []
    notes += problem.notes
    places = problem.detached.places()
    if places:
        shown = "; ".join(places[:8]) + ("; ..." if len(places) > 8 else "")
        notes.append(f"Taken for constants, as autograd does: {shown}.")
    return examination.in_order(), notes


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
    for name in point.unrepeatable:
        examination.note(name, "nondeterministic", "Two backward passes gave different gradients.")
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
    problem = examination.problem
    calls = record_calls(problem)
    with note_low_precision(list({node.function for node in calls.nodes})) as noted:
        problem.gradients()
    for node in calls.nodes:  # no gradient that comes through them can be better than they are
        if node.name in noted:
            for name in node.parameters:
                examination.limit_precision(name, node.name, noted[node.name])
    wrong = [name for name, record in examination.records.items() if record.verdict == "wrong"]
    if wrong:
        right = [n for n, r in examination.records.items() if r.verdict == "ok"]
        quick = CheckSettings(tolerance=settings.tolerance, seed=settings.seed)

        def error_of(call: Problem) -> float:
            """Check one call alone, at the very inputs that it had."""
            records = _examine(call, quick, (0.0,)).records.values()
            return max((r.relative_error for r in records if r.verdict == "wrong"), default=0.0)

        for name, function in find_suspects(calls, wrong, right, problem, error_of).items():
            record = examination.records[name]
            examination.records[name] = replace(record, function=function)
    return [f"{name}.backward leaves double precision ({how})." for name, how in noted.items()]
