"""From how the programs ended to labels, and from labels and findings to counts.

A twin counts whose median skill over the seeds is `SKILL` at least, and since the fifth report part
also `SIMPLE` of what simple models reach on its rows (`simple_models.py`); with a twin that does
not count, all that was drawn from it is left out. A changed program is sick where its median skill
lies `HARM` below its twin's, or where its form is wrong; healthy where it reaches `WELL` of its
twin's. What lies between is left out, and so is a harmful change that was meant to be harmless,
because no name for it is known, unless the change is `rate_up` or `rate_down`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.diagnosis.elsewhere.faults import BY_NAME
from benchmarks.diagnosis.elsewhere.programs import Drawn
from benchmarks.diagnosis.score import share

SKILL, SIMPLE, HARM, WELL = 0.4, 0.85, 0.15, 0.9
# these were labelled before simple models were asked; their labels stay
WITHOUT_SIMPLE = ("tune", "validate", "seen", "seen_2", "seen_3", "seen_4")
NAMES = {
    "rate_up": ("learning-rate-too-high",),
    "rate_down": ("learning-rate-too-low", "too-short"),
}
Row = dict[str, Any]
Key = tuple[str, int, str]  # program, seed, variation


@dataclass
class Labelled:
    """One program with its label and what was said of it.

    Attributes:
        names: the right ids; empty for a healthy one.
        runs: what was said, by seed and variation.
    """

    program: Drawn
    names: tuple[str, ...]
    skill: float
    runs: dict[tuple[int, str], Row] = field(default_factory=dict)

    @property
    def alarms(self) -> list[str]:
        """The ids of the alarms that stand at the end of the first run, in their order."""
        return alarms(self.runs[0, ""])


def alarms(row: Row, key: str = "findings") -> list[str]:
    """Return the ids of a run's alarms."""
    return [id_ for id_, severity, *_ in row[key] if severity != "info"]


def needs_seed(program: Drawn, seed: int, rows: Mapping[Key, Row]) -> bool:
    """Say whether a label depends on one more seed, where those before it are known.

    What is wrong by its form has its label without a run; two of three that end alike, well or
    badly, are the median's side.
    """
    change = BY_NAME.get(program.change)
    if seed == 0 or not program.change:
        return True
    if change is not None and change.structural:
        return False
    twin = skill_of(program.twin, rows)
    known = [rows[program.name, s, ""]["skill"] for s in range(seed)]
    are_low = sum(skill <= twin - HARM for skill in known)
    are_high = sum(skill >= WELL * twin for skill in known)
    return max(are_low, are_high) < 2


def skill_of(name: str, rows: Mapping[Key, Row]) -> float:
    """Return the median skill of a program over the seeds."""
    return median(
        row["skill"] for (own, _, variation), row in rows.items() if own == name and not variation
    )


def needs_simple(program: Drawn) -> bool:
    """Say whether the row of a program's first run holds what simple models reach."""
    return not program.change and program.part not in WITHOUT_SIMPLE


def learns(twin: Drawn, rows: Mapping[Key, Row]) -> bool:
    """Say whether a twin learns enough for it, and what was drawn from it, to count."""
    reached = skill_of(twin.name, rows)
    if needs_simple(twin) and reached < SIMPLE * rows[twin.name, 0, ""]["simple"]:
        return False
    return reached >= SKILL


def labelled(programs: Sequence[Drawn], rows: Mapping[Key, Row]) -> list[Labelled]:
    """Return the programs that have a label."""
    skills = {p.name: skill_of(p.name, rows) for p in programs if (p.name, 0, "") in rows}
    counted = {p.name for p in programs if p.name in skills and not p.change and learns(p, rows)}
    found = []
    for program in programs:
        if program.name not in skills or program.twin not in counted:
            continue
        own, twin = skills[program.name], skills[program.twin]
        change = BY_NAME.get(program.change)
        ids = NAMES.get(program.change) or (change.ids if change else ())
        is_wrong = change is not None and change.structural
        if own <= twin - HARM or is_wrong:
            names = ids
            if not names:
                continue
        elif own >= WELL * twin:
            names = ()
        else:
            continue
        runs = {(s, v): row for (name, s, v), row in rows.items() if name == program.name}
        found.append(Labelled(program, names, own, runs))
    return found


def counts(programs: Sequence[Labelled]) -> dict[str, str]:
    """Return what is reported, as shares with Wilson intervals."""
    sick = [p for p in programs if p.names]
    healthy = [p for p in programs if not p.names]
    near = [p for p in healthy if p.program.change]
    taken = [p for p in healthy if alarms(p.runs[0, ""], "withdrawn")]
    same = [
        alarms(row)[:1] == p.alarms[:1]
        for p in programs
        for key, row in p.runs.items()
        if key != (0, "")
    ]
    return {
        "found": share(sum(bool(p.alarms) for p in sick), len(sick)),
        "first alarm named rightly": share(
            sum(p.alarms[:1] != [] and p.alarms[0] in p.names for p in sick), len(sick)
        ),
        "healthy accused at the end": share(sum(bool(p.alarms) for p in healthy), len(healthy)),
        "of these near misses": share(sum(bool(p.alarms) for p in near), len(near)),
        "healthy with a withdrawn alarm": share(len(taken), len(healthy)),
        "same first alarm with another seed, batch or length": share(sum(same), len(same)),
    }


def mistakes(programs: Sequence[Labelled]) -> list[str]:
    """Return a line for each program that was got wrong."""
    lines = []
    for p in programs:
        said = ", ".join(p.alarms) or "nothing"
        if p.names and not (p.alarms and p.alarms[0] in p.names):
            word = "named otherwise" if p.alarms else "missed"
            lines.append(f"- {word}: {p.program.name} ({'/'.join(p.names)}), said {said}")
        elif not p.names and p.alarms:
            lines.append(f"- false alarm: {p.program.name}, said {said}")
    return lines
