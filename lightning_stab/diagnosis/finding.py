"""What was found: one record per cause."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

SEVERITIES = ("info", "warning", "error")  # in rising order
STATES = ("raised", "confirmed", "withdrawn")  # of a finding, in the course of a run
SHOWN_LAYERS = 3  # that a text names; of the others it says how many there are


@dataclass(frozen=True, eq=False)
class Evidence:
    """One measured number beside the threshold that it broke; an unknown one equals another.

    Attributes:
        value: what was measured; of several layers the worst.
        sign: ``>`` or ``<``: how it stands to the threshold.
        threshold: the number of the rule.
        name: the threshold's name, for ``thresholds=``.
    """

    value: float
    sign: str
    threshold: float
    name: str

    def _known(self) -> tuple[float | str | None, ...]:
        values = (self.value, self.sign, self.threshold, self.name)
        return tuple(None if value != value else value for value in values)

    def __eq__(self, other: object) -> bool:
        return self._known() == other._known() if isinstance(other, Evidence) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._known())


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, by which numbers, and what to do about it.

    Attributes:
        id: the name of the fault, such as ``vanishing-gradient``.
        severity: ``info``, ``warning`` or ``error``.
        step: optimizer steps taken when it was found.
        layers: names of the layers or parameters concerned; none where it concerns the whole run.
        evidence: the measured numbers, by the name of the fact.
        message: one sentence.
        advice: what to do, the best first.
        source: where the rule comes from.
        since: optimizer steps taken when it was first seen; a finding has to persist.
        seen: at how many checks in a row its conditions had held when it was found, or, at the end
            of the run, have held.
        state: ``raised``; ``confirmed`` where it still holds when the run ends; ``withdrawn`` where
            it no longer held at several checks.
        withdrawn_at: optimizer steps taken when it was withdrawn; None for one that stands.
        explained_by: the id of a deeper cause, found later, for which it was withdrawn.

    Example:
        >>> Finding("plateau", "info", 10, (), {}, "The loss stands still.", ()).is_alarm
        False
    """

    id: str
    severity: str
    step: int
    layers: tuple[str, ...]
    evidence: Mapping[str, Evidence]
    message: str
    advice: tuple[str, ...]
    source: str = field(default="", compare=False)
    since: int = field(default=0, compare=False)
    seen: int = field(default=1, compare=False)
    state: str = field(default="raised", compare=False)
    withdrawn_at: int | None = field(default=None, compare=False)
    explained_by: str = field(default="", compare=False)

    @property
    def is_alarm(self) -> bool:
        """Whether it is more than information."""
        return self.severity != "info"

    def _repr_html_(self) -> str:
        """Return the finding for notebooks: what, where, since when, and the advice."""
        escape = html.escape
        layers = ", ".join(self.layers[:SHOWN_LAYERS])
        more = len(self.layers) - SHOWN_LAYERS
        place = f" in {layers}" + (f" and {more} more" if more > 0 else "") if layers else ""
        head = f"{self.severity}: {self.id}{place}, since step {self.since}"
        head += f" ({self.state})" if self.state != "raised" else ""
        advice = "".join(f"<li>{escape(line)}</li>" for line in self.advice)
        return f"<p><b>{escape(head)}</b><br>{escape(self.message)}</p><ol>{advice}</ol>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for json and checkpoints; a number that is not finite is None."""
        plain = asdict(self)
        for numbers in plain["evidence"].values():
            numbers["value"] = numbers["value"] if math.isfinite(numbers["value"]) else None
        return {**plain, "layers": list(self.layers), "advice": list(self.advice)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Finding:
        """Return the finding that ``to_dict`` wrote."""
        evidence = {name: Evidence(**values) for name, values in plain["evidence"].items()}
        for name, each in evidence.items():
            evidence[name] = replace(each, value=math.nan) if each.value is None else each
        lists = {name: tuple(plain[name]) for name in ("layers", "advice")}
        return cls(**{**plain, **lists, "evidence": evidence})
