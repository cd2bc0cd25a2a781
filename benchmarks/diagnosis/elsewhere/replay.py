"""Record what the doctor knew at each moment of a run, and apply the present rules to it.

What a run showed does not depend on the rules, so that a changed rule is tried in seconds.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from lightning_stab import TrainingDoctor
from lightning_stab.diagnosis import Engine, Facts, Finding
from lightning_stab.diagnosis.facts import BY_LAYER, NAMES

EMPTY: dict[str, Any] = {f.name: {} if f.name in BY_LAYER else f.default for f in fields(Facts)}


class RecordingDoctor(TrainingDoctor):
    """The doctor, which keeps the facts of each moment.

    Attributes:
        moments: of each moment what has changed since the one before.
    """

    def _begin(self) -> None:
        super()._begin()
        self.moments: list[dict[str, Any]] = []
        engine, before = self._engine, dict(EMPTY)
        update = engine.update

        def recording(facts: Facts) -> list[Finding]:
            plain = {name: getattr(facts, name) for name in EMPTY}
            changed = {k: v for k, v in plain.items() if not _is_same(v, before[k])}
            self.moments.append({k: _short(v) for k, v in changed.items()})
            before.update(plain)
            return update(facts)

        engine.update = recording  # type: ignore[method-assign]  # of this engine alone


def findings_of(engine: Any) -> dict[str, Any]:
    """Return what stands and what was withdrawn as plain values."""
    lists = {"findings": engine.findings, "withdrawn": engine.withdrawn}
    return {
        name: [[f.id, f.severity, f.step, f.message] for f in found]
        for name, found in lists.items()
    }


def keep(folder: Path, key: tuple[str, int, str], moments: list[dict[str, Any]]) -> None:
    """Write a run's moments."""
    path = path_of(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        json.dump(moments, file)


def replayed(folder: Path, key: tuple[str, int, str]) -> dict[str, Any]:
    """Return what the present rules say of a recorded run."""
    with gzip.open(path_of(folder, key), "rt") as file:
        moments = json.load(file)
    engine, known = Engine(), dict(EMPTY)
    for changed in moments:
        known |= {name: value for name, value in changed.items() if name in NAMES}
        engine.update(Facts(**known))
    return findings_of(engine)


def path_of(folder: Path, key: tuple[str, int, str]) -> Path:
    """Return where a run's moments stand."""
    name, seed, variation = key
    return folder / f"{name.replace('/', '-')}.{seed}{variation}.json.gz"


def _is_same(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return {k: _short(v) for k, v in value.items()} if isinstance(value, dict) else value
