"""What the table of cures says of one run: numbers from its facts, lines of advice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning_stab.diagnosis.cures.table import CURES, Cure, names_of
from lightning_stab.diagnosis.facts import Facts
from lightning_stab.diagnosis.finding import Finding

GOOD_UPDATE = 0.02  # of the weights, at which most first steps are safe
FARTHEST = 1e4  # times the present learning rate
USUAL_MOMENTUM, USUAL_DECAY, USUAL_DROPOUT = 0.9, 0.01, 0.1


def estimates(facts: Facts, gradient_norm: float = math.nan, steps: int = 0) -> dict[str, Any]:
    """Return the numbers that a run's facts suggest, rounded to be read.

    The learning rate is scaled so that a step changes the weights by 2 % of their size where it
    was too high, and by 0.1 % to 1 % where it was too low.

    Args:
        facts: of the run.
        gradient_norm: the usual norm of its first gradients.
        steps: optimizer steps of the whole run.
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
    return {
        **{name: rounded(value) for name, value in known.items()},
        "warmup_steps": max(10, steps // 10),
        "usual_momentum": USUAL_MOMENTUM,
        "usual_decay": USUAL_DECAY,
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
        return {k: v for k, v in pairs.items() if v != ""}
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
    finding: Finding, values: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return what to do about a finding: the table's rows, or the rule's own lines.

    Args:
        finding: what was found.
        values: estimates from the run.
        there: options of the callbacks that are there, by class name.
    """
    names = names_of(finding)
    lines = [_line(cure, values, there) for cure in CURES if names & set(cure.answers)]
    known = tuple(line for line in lines if line)
    return known or finding.advice


def _line(cure: Cure, values: Mapping[str, Any], there: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line; nothing where all that it advises is there."""
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
    wanted = [v for _, arguments in cure.callbacks for v in arguments.values()]
    names = [v[1:-1] for v in wanted if isinstance(v, str) and v.startswith("{")]
    return any(isinstance(values.get(n), float) and math.isnan(values[n]) for n in names)


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
