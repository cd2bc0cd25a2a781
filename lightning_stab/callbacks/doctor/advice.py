"""Advice for the run at hand: a callback that is there already is not to be added."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lightning_stab.callbacks._trainer.lightning_classes import inherits
from lightning_stab.diagnosis import Finding

_CALL = re.compile(r"`(StepGuard|GradientClipping|WeightInitialization)\(([^`]*)\)`")
_SETTING = re.compile(r'(\w+)="?(\w+)"?')
_ALTERNATIVE = re.compile(r"^(?:, or |.* and (?=`|a lower))")


def advise_beside(callbacks: Iterable[Any], finding: Finding) -> Finding:
    """Return a finding whose advice names the settings of callbacks that are there.

    Args:
        callbacks: those of the Trainer.
        finding: what was found, with advice for a run without them.
    """
    there = list(callbacks)
    lines = (_fit_line(there, line) for line in finding.advice)
    return replace(finding, advice=tuple(line for line in lines if line))


def _fit_line(callbacks: list[Any], line: str) -> str:
    """Return one line of advice, nothing where all that it advises is there."""
    for match in reversed(list(_CALL.finditer(line))):
        name, settings = match.groups()
        present = next((c for c in callbacks if inherits(c, name)), None)
        if present is None:
            continue
        before, after = line[: match.start()], line[match.end() :]
        if name == "GradientClipping":
            line = f"{before}a lower `threshold` in the `GradientClipping` that is there{after}"
        elif name == "StepGuard" and not _has(present, settings):
            line = f"{before}`{settings}` in the `StepGuard` that is there{after}"
        elif before == "Add ":
            rest, found = _ALTERNATIVE.subn("", after)
            line = (
                f"Add {rest}" if rest.startswith(("`", "a lower")) else rest[:1].upper() + rest[1:]
            )
            line = line if found else ""
        elif name == "StepGuard" and before.endswith(" and "):
            line = before.removesuffix(" and ") + after
    line = re.sub(r"^Add (?=a lower)", "Use ", line)
    return re.sub(r"^Add (?=`\w+=)", "Set ", line)


def _has(callback: Any, settings: str) -> bool:
    """Say whether a callback has these settings, or a policy that goes further."""
    pairs = _SETTING.findall(settings)
    return all(str(getattr(callback, name)) in (value, "rewind") for name, value in pairs)
