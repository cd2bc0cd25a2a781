"""Counts with Wilson intervals: found, named, falsely accused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from benchmarks.diagnosis.corpus import Program
from benchmarks.diagnosis.detectors import OURS, alarms


@dataclass(frozen=True)
class Run:
    """One watched run and what each detector said of it."""

    name: str
    architecture: str
    half: str
    sick: bool
    near_miss: bool
    names: tuple[str, ...]
    metric: float
    alarms: dict[str, list[tuple[str, int]]]

    @classmethod
    def of(cls, program: Program, metric: float, callbacks: Mapping[str, Any]) -> Run:
        """Collect a run's alarms."""
        own = [f.name for f in fields(cls) if f.name not in ("metric", "alarms")]
        return cls(
            **{name: getattr(program, name) for name in own},
            metric=round(metric, 4),
            alarms={name: alarms(name, callback) for name, callback in callbacks.items()},
        )

    def is_found(self, detector: str) -> bool:
        """Whether the detector gave an alarm."""
        return bool(self.alarms[detector])

    def is_named(self, detector: str) -> bool:
        """Whether its first alarm has a right name."""
        return self.is_found(detector) and self.alarms[detector][0][0] in self.names

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927).

    Example:
        >>> [round(x, 3) for x in wilson(0, 60)]
        [0.0, 0.06]
    """
    if not total:
        return 0.0, 1.0
    p, n = hits / total, total
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def share(hits: int, total: int) -> str:
    """Return a count with its percentage and interval."""
    low, high = wilson(hits, total)
    percent = 100 * hits / total if total else math.nan
    return f"{hits} of {total}: {percent:.1f} % ({100 * low:.0f}-{100 * high:.0f})"


def table(runs: Sequence[Run], detectors: Sequence[str]) -> str:
    """Return the counts of each detector as a Markdown table."""
    sick = [r for r in runs if r.sick]
    healthy = [r for r in runs if not r.sick]
    near = [r for r in healthy if r.near_miss]
    lines = [
        "| detector | found | named rightly | false alarms | of the near misses |",
        "|---|---|---|---|---|",
    ]
    for name in detectors:
        counts = (
            share(sum(r.is_found(name) for r in sick), len(sick)),
            share(sum(r.is_named(name) for r in sick), len(sick)),
            share(sum(r.is_found(name) for r in healthy), len(healthy)),
            share(sum(r.is_found(name) for r in near), len(near)),
        )
        lines.append(f"| {name} | " + " | ".join(counts) + " |")
    return "\n".join(lines)


def misses(runs: Sequence[Run], detector: str = OURS) -> str:
    """Return every run that the detector got wrong, a line each."""
    lines = []
    for r in runs:
        told = ", ".join(id_ for id_, _ in r.alarms[detector]) or "nothing"
        if r.sick and not r.is_found(detector):
            lines.append(f"- missed: {r.name} ({'/'.join(r.names)})")
        elif r.sick and not r.is_named(detector):
            lines.append(f"- named otherwise: {r.name} ({'/'.join(r.names)}), reported {told}")
        elif not r.sick and r.is_found(detector):
            lines.append(f"- false alarm: {r.name}, reported {told}")
    return "\n".join(lines) or "Nothing was got wrong."
