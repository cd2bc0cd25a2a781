"""The check of a whole problem: point, parts, verdicts, suspects."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import torch

from lightning_stab.functional.gradcheck.custom_functions import watched_functions
from lightning_stab.functional.gradcheck.examination import Examination
from lightning_stab.functional.gradcheck.low_precision import noted_low_precision
from lightning_stab.functional.gradcheck.parts import largest_norm, parts_of, small_groups
from lightning_stab.functional.gradcheck.point import Point, found_point
from lightning_stab.functional.gradcheck.problem import Problem
from lightning_stab.functional.gradcheck.report import GradientReport, ParameterRecord
from lightning_stab.functional.gradcheck.search import Reference
from lightning_stab.functional.gradcheck.settings import CheckSettings
from lightning_stab.functional.gradcheck.suspects import Calls, calls_of, named_suspects


def check_problem(problem: Problem, settings: CheckSettings | None = None) -> GradientReport:
    """Compare autograd's gradients with central differences and report on every parameter.

    Args:
        problem: the losses of a step; its parameters are moved, perturbed and left there.
        settings: how to go about it.
    """
    settings = settings or CheckSettings()
    start = time.perf_counter()
    with warnings.catch_warnings(), watched_functions(problem.depth):
        warnings.simplefilter("ignore")  # the module has its own say in the real run
        records, notes = _records(problem, settings)
    return GradientReport(
        tuple(records),
        notes=tuple(notes),
        num_forwards=problem.num_forwards,
        num_backwards=problem.num_backwards,
        seconds=time.perf_counter() - start,
        skipped=not records and bool(problem.parameters),
    )


def _records(problem: Problem, settings: CheckSettings) -> tuple[list[ParameterRecord], list[str]]:
    generator = torch.Generator().manual_seed(settings.seed)
    if not problem.parameters:
        return [], ["The module has no trainable parameter."]
    point = found_point(problem, generator)
    if not point.finite:
        return [], ["The step gave no finite loss, so there is nothing to differentiate."]
    if not point.repeatable:
        return _all_nondeterministic(problem), [_NOT_REPEATABLE]
    examination = _examined(problem, point, settings, generator)
    notes = _blame(examination, settings)
    return examination.in_order(), notes + problem.notes + _stop_notes(problem)


def _examined(
    problem: Problem, point: Point, settings: CheckSettings, generator: torch.Generator
) -> Examination:
    reference = Reference(point.losses, point.noise, settings.tolerance)
    reference.held = problem.branches_to_hold()
    examination = Examination(problem, point, reference, generator)
    _examine(examination, settings)
    return examination


def _examine(examination: Examination, settings: CheckSettings) -> None:
    point = examination.point
    judged = [n for n in examination.problem.parameters if n not in point.unrepeatable]
    asked = {name for found in point.gradients for name in found}
    for name in examination.problem.parameters.keys() - asked:
        examination.note(name, "unused", "No loss of this step is for this parameter.")
    judged = [name for name in judged if name in asked]
    for name in point.unrepeatable:
        examination.note(name, "nondeterministic", "Two backward passes gave different gradients.")
    if settings.coordinates is not None:
        number = settings.coordinates if isinstance(settings.coordinates, int) else None
        for name in judged:
            examination.coordinates(name, number)
        return
    norms = {name: largest_norm(name, point.gradients) for name in judged}
    silent = [name for name in judged if norms[name] == 0.0]
    audible = [name for name in judged if norms[name] != 0.0]
    parts = parts_of(audible, point.gradients, settings.mode)
    if any(len(part) > 1 for part in parts):
        for part in parts:
            examination.part(part, settings.num_directions)
    else:
        _examine_tensors(examination, audible, settings.num_directions)
    for part in parts_of(silent, point.gradients, "model"):
        examination.silent(part)


def _examine_tensors(examination: Examination, names: list[str], num_directions: int) -> None:
    """Give each tensor a direction of its own, and further ones in company."""
    for name in names:
        examination.part((name,), 1)
    right = [name for name in names if examination.records[name].verdict in ("ok", "zero")]
    for part in small_groups(right, examination.point.gradients):
        examination.part(part, num_directions - 1)


def _blame(examination: Examination, settings: CheckSettings) -> list[str]:
    """Name the guilty Functions, and those whose backward leaves double precision."""
    problem = examination.problem
    if not _has_custom_functions(problem):
        return []
    calls = calls_of(problem)
    classes = list({node.function for node in calls.nodes})
    with noted_low_precision(classes) as noted:
        problem.gradients()
    _demote(examination, calls, noted)
    wrong = [name for name, record in examination.records.items() if record.verdict == "wrong"]
    if wrong:
        right = [n for n, r in examination.records.items() if r.verdict == "ok"]
        quick = CheckSettings(tolerance=settings.tolerance, seed=settings.seed)
        suspects = named_suspects(calls, wrong, right, problem, lambda p: _trial(p, quick))
        examination.blame(suspects)
    return [f"{name}.backward leaves double precision ({how})." for name, how in noted.items()]


def _demote(examination: Examination, calls: Calls, noted: dict[str, str]) -> None:
    """Call gradients that come through a low-precision backward no better than they can be."""
    for node in calls.nodes:
        if node.name in noted:
            for name in node.parameters:
                examination.limit(name, node.name, noted[node.name])


def _trial(problem: Problem, settings: CheckSettings) -> float:
    """Check one call alone, at the very inputs that it had."""
    records, _ = _single(problem, settings)
    return max((r.relative_error for r in records if r.verdict == "wrong"), default=0.0)


def _single(problem: Problem, settings: CheckSettings) -> tuple[list[ParameterRecord], list[str]]:
    generator = torch.Generator().manual_seed(settings.seed)
    point = found_point(problem, generator, moves=(0.0,))
    if not (point.finite and point.repeatable):
        return [], []
    return _examined(problem, point, settings, generator).in_order(), []


def _has_custom_functions(problem: Problem) -> bool:
    return problem.depth.called


def _all_nondeterministic(problem: Problem) -> list[ParameterRecord]:
    return [
        ParameterRecord(name, "nondeterministic", tuple(parameter.shape))
        for name, parameter in problem.parameters.items()
    ]


_NOT_REPEATABLE = (
    "Two runs from the same state, with the same random numbers, gave different losses. "
    "Draw random numbers from torch's, NumPy's or Python's global generators to have them checked."
)


def _stop_notes(problem: Problem) -> list[str]:
    places: Sequence[str] = problem.recording.places()
    if not places:
        return []
    shown = "; ".join(places[:8]) + ("; ..." if len(places) > 8 else "")
    return [f"Taken for constants, as autograd does: {shown}."]
