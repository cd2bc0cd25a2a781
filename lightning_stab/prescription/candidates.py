"""From findings to candidates: which rows of the table can be tried here, and with what numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_stab.arguments import one_of
from lightning_stab.diagnosis import Finding
from lightning_stab.diagnosis.cures import (
    BATCHES,
    BY_ID,
    HIGH_MOMENTUM,
    LONGER,
    USUAL_DECAY,
    Cure,
    cures_for,
    estimates,
    filled,
    names_of,
    rounded,
)
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.judgement import fall_of
from lightning_stab.prescription.survey import Survey
from lightning_stab.prescription.trial import Program, Run

Choice = str | Callable[..., Any]
UNUSUAL_GAIN = 3  # of a norm at the start, or its inverse; 0 is a choice of its own
UNUSUAL_SHIFT = 2  # of its values, whose deviation is the gain
SMALLER = 2  # of the loader's batches one becomes so many
ENOUGH_ROWS, MORE_ROWS = 32, 4  # of a batch that batch normalisation sees: at least, times
ERRORS = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
FITTING = {  # by the module after the last weight layer and by that of the loss
    **{("Softmax", loss): "CrossEntropyLoss" for loss in (*ERRORS, "BCELoss")},
    **{("Sigmoid", loss): "BCEWithLogitsLoss" for loss in ERRORS},
    ("Sigmoid", "BCELoss"): "CrossEntropyLoss",  # of several classes, one right
    ("", "BCEWithLogitsLoss"): "CrossEntropyLoss",
}
GRID = (1.0, 0.2, 5.0, 0.04, 25.0)  # of learning rates around the estimate, in that order
SEARCHED = ("lower-learning-rate", "higher-learning-rate")

NEEDS: Mapping[str, Callable[[Survey, Program], bool]] = {
    "output activation": lambda s, p: bool(s.output_activation[0]),
    "no output activation module": lambda s, p: not s.output_activation[0],
    "standardizable inputs": lambda s, p: s.takes_inputs,
    "real targets": lambda s, p: s.real_targets,
    "unusual norms": lambda s, p: (
        max(s.norm_gain, 1 / max(s.norm_gain, 1e-9)) > UNUSUAL_GAIN or s.norm_shift > UNUSUAL_SHIFT
    ),
    "high momentum": lambda s, p: s.momentum > HIGH_MOMENTUM,
    "high weight decay": lambda s, p: s.weight_decay > 0.2,
    "high dropout": lambda s, p: s.dropout > 0.5,
    "learning rate": lambda s, p: s.learning_rate > 0,
    "schedule": lambda s, p: s.has_schedule,
    "no schedule": lambda s, p: not s.has_schedule and "LearningRateDecay" not in s.callbacks,
    "relu modules": lambda s, p: "ReLU" in s.hidden_classes,
    "batch norm": lambda s, p: "batch" in s.norms,
    "layer norm": lambda s, p: "layer" in s.norms,
    "long sequence": lambda s, p: s.long_sequences > 0,
    "squared error module": lambda s, p: "MSELoss" in s.losses,
    "loss module that another fits": lambda s, p: bool(fitting_loss(s)[1]),
    "a metric that is not the loss": lambda s, p: "loss" not in p.metric.lower(),
    "batch normalisation": lambda s, p: s.batch_norms,
    "plain loader": lambda s, p: s.batch_size > 0,
    "data in a fixed order": lambda s, p: s.is_ordered,
    "large batches": lambda s, p: s.batch_size >= ENOUGH_ROWS,
    "epochs": lambda s, p: s.max_epochs > 0,
}
WANTED = {  # what is said where a need is not met
    "output activation": "one activation module after the last weight layer",
    "standardizable inputs": "a first layer that is linear, a convolution or recurrent",
    "real targets": "batches whose second part holds real numbers",
    "relu modules": "`nn.ReLU` modules",
    "batch norm": "activation modules, each called once, behind layers of known width",
    "layer norm": "activation modules, each called once, behind layers of known width",
    "long sequence": "an `nn.Sequential` of at least four weight layers",
    "squared error module": "an `nn.MSELoss` module",
    "loss module that another fits": "one loss module, which does not fit the last activation",
    "a metric that is not the loss": "a metric that is not the loss itself",
    "batch normalisation": "`nn.BatchNorm` modules",
    "plain loader": "a `DataLoader` that can be built again, or a data module's `batch_size`",
}
# what such a program simply does not have; nothing is said of it
SILENT = (
    "no output activation module",
    "unusual norms",
    "high momentum",
    "high weight decay",
    "high dropout",
    "schedule",
    "no schedule",
    "learning rate",
    "epochs",
    "data in a fixed order",
    "large batches",
)


def candidates_for(
    program: Program, watched: Run, choices: Sequence[Choice] | None
) -> list[Candidate]:
    """Return what may cure the watched run, the best first, with what cannot be tried at the end.

    Args:
        program: what is trained.
        watched: its run as it is.
        choices: ids of rows, in the order in which they are tried, and functions of the user's
            own; None for every row that answers a finding.
    """
    findings = [finding for finding in watched.findings if finding.is_alarm]
    given = choices or ()
    own = [_own(change, findings) for change in given if not isinstance(change, str)]
    ids = (
        None
        if choices is None
        else [one_of("cures", c, BY_ID) for c in given if isinstance(c, str)]
    )
    pairs = _pairs(findings, ids)
    values = values_of(program, watched)
    known = [
        c for cure, finding in pairs for c in _made(cure, finding, watched.survey, program, values)
    ]
    if ids is None:
        # what went well and then did not was changed on its way
        first = "schedule" if fall_of(program, watched) else ""
        known = _in_order(known, findings, first)
    kept = [*own, *known]
    return [c for c in kept if not c.untried] + [c for c in kept if c.untried]


def _in_order(
    candidates: Sequence[Candidate], findings: Sequence[Finding], first: str
) -> list[Candidate]:
    """Return one row before all, the advised ones, what is only tried, other numbers, long runs."""
    names = {f.id: names_of(f.id, f.evidence) for f in findings}
    seen: set[str] = set()

    def place(candidate: Candidate) -> tuple[bool, ...]:
        again = candidate.id in seen
        seen.add(candidate.id)
        cure, own = BY_ID[candidate.id], names[candidate.for_finding]
        rank = (not cure.is_advised_for(own), cure.is_late_for(own))
        return candidate.id != first, candidate.length > 1, again, *rank

    return sorted(candidates, key=place)


def _pairs(findings: Sequence[Finding], ids: Sequence[str] | None) -> list[tuple[Cure, str]]:
    """Return each row once, with the finding that it answers; the first finding's rows first."""
    pairs: dict[str, tuple[Cure, str]] = {}
    if ids is not None:
        for id_ in ids:
            answered = [f.id for f in findings if BY_ID[id_] in cures_for(f)]
            pairs[id_] = (BY_ID[id_], next(iter([*answered, *(f.id for f in findings)]), ""))
        return list(pairs.values())
    for finding in findings:
        for cure in cures_for(finding):
            pairs.setdefault(cure.id, (cure, finding.id))
    return list(pairs.values())


def values_of(program: Program, watched: Run) -> dict[str, Any]:
    """Return the numbers and names that rows of the table may ask for."""
    survey = watched.survey
    facts = watched.facts
    if survey.learning_rate > 0:  # that before schedules, which the cures set
        facts = replace(facts, learning_rate=survey.learning_rate)
    return {
        **estimates(facts, watched.gradient_norm, survey.steps),
        "momentum": survey.momentum,
        "norm_gain": rounded(survey.norm_gain, 2),
        "norm_shift": rounded(survey.norm_shift, 2),
        "weight_decay": survey.weight_decay,
        "usual_decay": USUAL_DECAY if survey.optimizer == "AdamW" else 0.0,
        "dropout": survey.dropout,
        "output_name": survey.output_activation[0],
        **dict(zip(("loss_class", "fitting_loss"), fitting_loss(survey), strict=True)),
        "first_layer": survey.first_layer,
        "last_layer": survey.last_layer,
        "accumulate": BATCHES * survey.accumulate,
        "batch_size": survey.batch_size,
        "larger_batch": max(ENOUGH_ROWS, MORE_ROWS * survey.batch_size),
        "smaller_batch": max(1, survey.batch_size // SMALLER),
        "epochs": survey.max_epochs,
        "longer_epochs": LONGER * survey.max_epochs,
        "metric": program.metric,
        "mode": program.mode,
    }


def fitting_loss(survey: Survey) -> tuple[str, str]:
    """Return the class of the loss module, and that of one which fits; empty where none does."""
    pairs = [(loss, FITTING.get((survey.output_activation[1], loss), "")) for loss in survey.losses]
    return pairs[0] if len(pairs) == 1 else ("", "")


def _made(
    cure: Cure, for_finding: str, survey: Survey, program: Program, values: Mapping[str, Any]
) -> list[Candidate]:
    """Return a row's candidates: several where a number is searched, none where it says nothing."""
    missing = [need for need in cure.needs if not NEEDS[need](survey, program)]
    if any(need in SILENT for need in missing) or survey.optimizer in cure.instead_of:
        return []
    there = [path.rpartition(".")[2] for path, _ in cure.callbacks]
    present = [name for name in there if name in survey.callbacks]
    untried = ""
    if not cure.is_automatic:
        untried = "It needs a change of code or data."
    elif missing:
        untried = f"It needs {WANTED[missing[0]]}."
    elif present:
        untried = f"`{present[0]}` is there already: change its arguments by hand."
    if cure.id in SEARCHED and not untried:
        return _searched(cure, for_finding, values)
    in_yaml = "batch_size" in cure.loader and survey.batch_size_in_yaml
    return [replace(_candidate(cure, for_finding, values, untried), in_yaml=in_yaml)]


def _candidate(
    cure: Cure, for_finding: str, values: Mapping[str, Any], untried: str = ""
) -> Candidate:
    shown = {n: f"{v:g}" if isinstance(v, float) else v for n, v in values.items()}
    return Candidate(
        id=cure.id,
        for_finding=for_finding,
        what=cure.what.format_map(shown),
        callbacks=() if untried else tuple((p, filled(a, values)) for p, a in cure.callbacks),
        trainer={} if untried else filled(cure.trainer, values),
        loader={} if untried else filled(cure.loader, values),
        code=tuple(line.format_map(shown) for line in cure.code),
        untried=untried,
        length=_length(cure, values),
    )


def _length(cure: Cure, values: Mapping[str, Any]) -> float:
    """Return how many batches a run with the cure has, in runs of the program as it is."""
    if "max_epochs" in cure.trainer:
        return float(LONGER)
    rows = filled(cure.loader, values).get("batch_size")
    return float(values["batch_size"] / rows) if rows else 1.0


def _searched(cure: Cure, for_finding: str, values: Mapping[str, Any]) -> list[Candidate]:
    """Return a row once for each learning rate of a grid on the right side of the present one."""
    name = "lower_rate" if cure.id == SEARCHED[0] else "higher_rate"
    now, estimate = values["learning_rate"], values[name]
    if not math.isfinite(estimate):
        return []
    rates = [rounded(estimate * factor) for factor in GRID]
    right = [r for r in rates if (r < now if name == "lower_rate" else r > now)]
    return [_candidate(cure, for_finding, {**values, name: rate}) for rate in dict.fromkeys(right)]


def _own(change: Callable[..., Any], findings: Sequence[Finding]) -> Candidate:
    name = getattr(change, "__name__", type(change).__name__)
    lines = (getattr(change, "__doc__", None) or "").strip().splitlines()
    return Candidate(
        id=name,
        for_finding=findings[0].id if findings else "",
        what=lines[0] if lines else f"Apply `{name}`.",
        code=(f"{name}(module, data, trainer_kwargs)",),
        change=change,
    )
