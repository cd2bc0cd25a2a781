"""The detectors that stand in the table: ours, and the published ones."""

from __future__ import annotations

from typing import Any

from diagnosis_baselines import BASELINES
from lightning.pytorch import Callback

from lightning_stab import TrainingDoctor
from lightning_stab.diagnosis.rules import CAUSES

OURS = "TrainingDoctor"
DETECTORS = (OURS, *BASELINES)


def watch() -> dict[str, Callback]:
    """Return a fresh callback of each detector, by name."""
    others = {name: make() for name, make in BASELINES.items()}
    return {OURS: TrainingDoctor(print_findings=False), **others}


def alarms(name: str, callback: Any) -> list[tuple[str, int]]:
    """Return the ids and steps of a detector's alarms, the one that it would be judged by first.

    Ours are told in the order of causes, theirs in the order of time.
    """
    if name != OURS:
        return [(f.id, f.step) for f in callback.findings]
    told = [f for f in callback.findings if f.is_alarm]
    told.sort(key=lambda f: (CAUSES[f.id], f.step))
    return [(f.id, f.step) for f in told]
