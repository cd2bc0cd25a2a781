"""What the table of cures says of one run: numbers from its facts, lines of advice."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from lightning_stab.diagnosis.cures.cure import Cure, names_of
from lightning_stab.diagnosis.cures.table import CURES
from lightning_stab.diagnosis.facts import Facts
from lightning_stab.diagnosis.finding import Finding

GOOD_UPDATE = 0.02  # of the weights, at which most first steps are safe
FARTHEST = 1e4  # times the present learning rate
USUAL_MOMENTUM, USUAL_DECAY, USUAL_DROPOUT = 0.9, 0.01, 0.1
HIGH_MOMENTUM = 0.95  # above it momentum may be what is wrong
LONGER = 2  # times as many epochs
BATCHES = 4  # as many batches in a step


def estimates(
    facts: Facts, gradient_norm: float = math.nan, steps: int = 0, momentum: float = math.nan
) -> dict[str, Any]:
    """Return the numbers that a run's facts suggest, rounded to be read.

    The learning rate is scaled so that a step changes the weights by 2 % of their size where it
    was too high, and by 0.1 % to 1 % where it was too low.

    Args:
        facts: of the run.
        gradient_norm: the usual norm of its first gradients.
        steps: optimizer steps of the whole run.
        momentum: of the optimizer; unknown to the texts where it is ordinary.
    """
    rate = facts.learning_rate
    first, recent = facts.early_update_ratio, facts.update_ratio
    lower = rate * GOOD_UPDATE / first if first > 0 else rate / 10
    higher = rate * GOOD_UPDATE / 2 / recent if recent > 0 else rate * 10
    known = {
        "learning_rate": rate,
        "lower_rate": min(max(lower, rate / FARTHEST), rate / 3),
        "higher_rate": max(min(higher, rate * FARTHEST), rate * 3),
        "clip_threshold": gradient_norm if 0 < gradient_norm < 1e4 else 1.0,
    }
    epochs = facts.epoch / facts.progress if facts.progress > 0 else math.nan
    return {
        **{name: rounded(value) for name, value in known.items()},
        "warmup_steps": max(10, steps // 10),
        "norm_gain": math.nan,  # known to who has seen the module
        "norm_shift": math.nan,
        "momentum": momentum if momentum > HIGH_MOMENTUM else math.nan,
        "usual_momentum": USUAL_MOMENTUM,
        "usual_decay": USUAL_DECAY,
        "usual_dropout": USUAL_DROPOUT,
        "accumulate": BATCHES,
        "epochs": round(epochs) if epochs >= 1 else math.nan,
        "longer_epochs": LONGER * round(epochs) if epochs >= 1 else math.nan,
        "metric": "val_loss",
        "mode": "min",
    }


def rounded(value: float, digits: int = 1) -> float:
    """Return a number with few digits.

    Example:
        >>> rounded(0.00272)
        0.003
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """Return arguments with their estimates put in; an empty string is left out.

    Example:
        >>> filled({"threshold": "{clip_threshold}"}, {"clip_threshold": 0.5})
        {'threshold': 0.5}
    """
    if isinstance(template, Mapping):
        pairs = {filled(k, values): filled(v, values) for k, v in template.items()}
        return {k: v for k, v in pairs.items() if "" not in (k, v)}
    if isinstance(template, str) and template.startswith("{"):
        return values.get(template[1:-1], "")
    return template


def missing_settings(arguments: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a callback which is there does not have.

    A guard that rewinds goes further than one that skips.
    """
    return {
        name: value
        for name, value in arguments.items()
        if str(there.get(name)) not in (str(value), "rewind")
    }


def advice_for(
    finding: Finding,
    values: Mapping[str, Any],
    there: Mapping[str, Mapping[str, Any]],
    tried: Collection[str] = (),
) -> tuple[str, ...]:
    """Return what to do about a finding, from the table of cures, the best first.

    Where all of it is there already, the lines that the finding has; nothing where all of it was
    tried.

    Args:
        finding: what was found.
        values: estimates from the run.
        there: options of the callbacks that are there, by class name; optimizers too.
        tried: ids of rows that were tried and did not help.
    """
    lines = advised(names_of(finding.id, finding.evidence), values, there)
    left = tuple(line for id_, line in lines.items() if id_ not in tried)
    return left if lines else finding.advice


def advised(
    names: set[str], values: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return the line of each row that has something to say, by its id, the best first."""
    rows = [cure for cure in CURES if cure.is_advised_for(names)]
    return {cure.id: line for cure in rows if (line := _line(cure, values, there))}


def _line(cure: Cure, values: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line; nothing where all that it advises is there."""
    if there.keys() & set(cure.instead_of):
        return ""
    names = {path.rpartition(".")[2]: arguments for path, arguments in cure.callbacks}
    if not names.keys() & there.keys():
        return "" if _is_unknown(cure, values) else cure.what.format_map(_Shown(values))
    parts = []
    for name, template in names.items():
        arguments = filled(template, values)
        if name not in there:
            parts.append(f"add `{name}({_call(arguments)})`")
        elif name == "GradientClipping":
            parts.append("use a lower `threshold` in the `GradientClipping` that is there")
        elif name in ("StepGuard", "OptimizerSettings") and (
            missing := missing_settings(arguments, there[name])
        ):
            parts.append(f"set `{_call(missing)}` in the `{name}` that is there")
    text = ", and ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def _is_unknown(cure: Cure, values: Mapping[str, Any]) -> bool:
    """Say whether a row names a number that nobody has measured."""
    return any(isinstance(v := values.get(name), float) and math.isnan(v) for name in cure.named)


def _call(arguments: Mapping[str, Any]) -> str:
    shown = (
        f'"{v}"' if isinstance(v, str) else f"{v:g}" if isinstance(v, float) else str(v)
        for v in arguments.values()
    )
    return ", ".join(f"{name}={value}" for name, value in zip(arguments, shown, strict=True))


class _Shown(dict[str, Any]):
    """Values that print themselves short."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return f"{value:g}" if isinstance(value, float) else value
