"""The programs as data: `programs.json` holds them, one line each, by architecture.

A program states what it sets beside the program named as its `from` (by default the family's
"base"); a sick one starts from its healthy twin, so that what it sets is the one change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("programs.json")


@dataclass(frozen=True)
class Program:
    """One training program, its label and the reason for it.

    Attributes:
        name: architecture/what it is.
        architecture: the family; the split into halves is by this.
        half: "tune" or "report".
        sick: whether something is wrong with it.
        near_miss: whether a naive rule takes it for the other class.
        twin: for a sick one the healthy program that differs in one change; for a healthy one the
            reference it is measured against (a reference names itself).
        structural: sick whatever the metric.
        names: the ids that name the fault rightly, the best first; empty for a healthy one.
        change: what differs from the twin, in words.
        settings: what the builder of its architecture needs.
    """

    name: str
    architecture: str
    half: str
    sick: bool
    near_miss: bool
    twin: str
    structural: bool
    names: tuple[str, ...]
    change: str
    settings: dict[str, Any]


def load(source: Path = SOURCE) -> tuple[Program, ...]:
    """Read all programs."""
    families = json.loads(source.read_text())
    return tuple(p for name, family in families.items() for p in family_programs(name, family))


def family_programs(architecture: str, family: dict[str, Any]) -> Iterator[Program]:
    """Yield the programs of one family, with their settings resolved."""
    settings: dict[str, dict[str, Any]] = {}
    for short, entry in family["programs"].items():
        names = tuple(entry.get("names", ()))
        twin = entry.get("twin", short if entry.get("reference") else "base")
        origin = twin if names else entry.get("from", "base")
        own = entry.get("set", {})
        settings[short] = {**settings.get(origin, family["settings"]), **own}
        yield Program(
            name=f"{architecture}/{short}",
            architecture=architecture,
            half=family["half"],
            sick=bool(names),
            near_miss=entry.get("near_miss", False),
            twin=f"{architecture}/{twin}",
            structural=entry.get("structural", False),
            names=names,
            change=entry.get("change", ""),
            settings=settings[short],
        )


PROGRAMS = load()
