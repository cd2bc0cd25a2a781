"""The detectors that stand in the table: ours, and the published ones."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

from benchmarks.diagnosis.baselines import BASELINES
from lightning_stab import TrainingDoctor

OURS = "TrainingDoctor"
DETECTORS = (OURS, *BASELINES)


def watch() -> dict[str, Callback]:
    """Return a fresh callback of each detector, by name."""
    others = {name: make() for name, make in BASELINES.items()}
    return {OURS: TrainingDoctor(print_findings=False), **others}


def alarms(name: str, callback: Any) -> list[tuple[str, int]]:
    """Return the ids and steps of a detector's alarms in the order in which they were given."""
    told = callback.findings
    return [(f.id, f.step) for f in told if name != OURS or f.is_alarm]
