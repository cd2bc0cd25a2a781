"""From facts to findings: one alarm per cause, only what persists, never a flood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning_stab.diagnosis.facts import BY_LAYER, NAMES, OF_VALIDATION, Facts
from lightning_stab.diagnosis.finding import SEVERITIES, Finding
from lightning_stab.diagnosis.rule import Match, Rule, match
from lightning_stab.diagnosis.rules import CAUSES, EXPLAINS, RULES
from lightning_stab.diagnosis.thresholds import THRESHOLDS

SHOWN_LAYERS = 3


class Engine:
    """Keeps what was found, and decides what is new.

    Of the rules that hold, those of the deepest cause speak: a run whose weights are NaN is not
    told that its loss stands still, and a net that was born with vanishing gradients is not told
    to raise its learning rate. ``CAUSES`` is that order. A rule speaks once its conditions have
    held at ``persistence`` moments in a row; a sickness is told once, and again only if it has
    become graver, or, for one that passes, after ``cool_down`` steps.

    Args:
        thresholds: numbers that replace the defaults, by name, or by ``id.name`` for one id.
        ignore: ids, or ``id:layer`` patterns, that are not told.
        rules: the rules, all of the suite's by default.
        cool_down: steps before the same event is told again.

    Example:
        >>> engine = Engine()
        >>> [f.id for f in engine.update(Facts(step=1, doubled_softmax=1.0))]
        ['output-activation']
        >>> engine.update(Facts(step=2, doubled_softmax=1.0))
        []
    """

    def __init__(
        self,
        thresholds: Mapping[str, float] | None = None,
        ignore: Sequence[str] = (),
        rules: Sequence[Rule] = RULES,
        cool_down: int = 1000,
    ) -> None:
        self.thresholds = {**THRESHOLDS, **(thresholds or {})}
        self.ignore = tuple(ignore)
        self.rules = tuple(rules)
        self.cool_down = cool_down
        self.findings: list[Finding] = []
        self._streaks = [0] * len(self.rules)

    def update(self, facts: Facts) -> list[Finding]:
        """Judge one moment; return what is new, the deepest cause first.

        Args:
            facts: what was measured up to this moment.
        """
        ripe: list[tuple[Rule, Match]] = []
        for index, rule in enumerate(self.rules):
            if not _is_asked(rule, facts.moment):
                continue
            found = match(rule, facts, self._thresholds_of(rule), self._silenced(rule, facts))
            self._streaks[index] = self._streaks[index] + 1 if found is not None else 0
            if found is not None and self._streaks[index] >= rule.persistence:
                ripe.append((rule, found))
        ripe = [(rule, found) for rule, found in ripe if rule.id not in self.ignore]
        ripe.sort(key=lambda pair: (CAUSES[pair[0].id], -SEVERITIES.index(pair[0].severity)))
        new = []
        for rule, found in ripe:
            if not self._is_covered(rule) and not self._is_known(rule, facts):
                new.append(_finding(rule, found, facts))
                self.findings.append(new[-1])
        return new

    def state_dict(self) -> dict[str, Any]:
        """Return what was found, and for how long each rule has held, as plain values."""
        return {"findings": [f.to_dict() for f in self.findings], "streaks": list(self._streaks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue; what other rules had counted is forgotten."""
        self.findings = [Finding.from_dict(plain) for plain in state["findings"]]
        if len(state["streaks"]) == len(self.rules):
            self._streaks = list(state["streaks"])

    def _thresholds_of(self, rule: Rule) -> Mapping[str, float]:
        """Return the thresholds, with those that were given for this id alone."""
        own = {
            n.partition(".")[2]: v
            for n, v in self.thresholds.items()
            if n.startswith(rule.id + ".")
        }
        return {**self.thresholds, **own} if own else self.thresholds

    def _silenced(self, rule: Rule, facts: Facts) -> frozenset[str]:
        patterns = [p.partition(":")[2] for p in self.ignore if p.startswith(rule.id + ":")]
        if not patterns:
            return frozenset()
        names = {n for c in rule.conditions if c.fact in BY_LAYER for n in getattr(facts, c.fact)}
        return frozenset(n for n in names if any(fnmatchcase(n, p) for p in patterns))

    def _is_covered(self, rule: Rule) -> bool:
        """Say whether an alarm that was given explains this one."""
        return any(known.is_alarm and rule.id in EXPLAINS[known.id] for known in self.findings)

    def _is_known(self, rule: Rule, facts: Facts) -> bool:
        known = [f for f in self.findings if f.id == rule.id]
        if not known:
            return False
        graver = all(SEVERITIES.index(f.severity) < SEVERITIES.index(rule.severity) for f in known)
        again = rule.is_event and facts.step - known[-1].step >= self.cool_down
        return not (graver or again)


def _finding(rule: Rule, found: Match, facts: Facts) -> Finding:
    numbers = {name: _Shown(getattr(facts, name)) for name in NAMES - BY_LAYER - {"moment"}}
    numbers |= {name: _Shown(e.value) for name, e in found.evidence.items()}
    places = {"layers": _listed(found.layers), "number": len(found.layers)}

    def filled(text: str) -> str:
        return text.format_map({**numbers, **places})

    return Finding(
        id=rule.id,
        severity=rule.severity,
        step=facts.step,
        layers=found.layers,
        evidence=found.evidence,
        message=filled(rule.message),
        advice=tuple(filled(line) for line in rule.advice),
        source=rule.source,
    )


def _is_asked(rule: Rule, moment: str) -> bool:
    """Say whether what a rule looks at was measured anew at this moment."""
    if moment == "start":
        return rule.persistence == 1
    is_about_validation = any(c.fact in OF_VALIDATION for c in rule.conditions)
    return moment not in ("look", "validation") or is_about_validation == (moment == "validation")


def _listed(layers: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in layers[:SHOWN_LAYERS])
    more = len(layers) - SHOWN_LAYERS
    return f"{shown} and {more} more" if more > 0 else shown


class _Shown(float):
    """A number that prints itself short; ``/10`` and ``*10`` for advice, ``a`` without a sign."""

    def __format__(self, spec: str) -> str:
        value = float(self)
        if spec.startswith("/"):
            return f"{value / float(spec[1:]):.2g}"
        if spec.startswith("*"):
            return f"{value * float(spec[1:]):.2g}"
        if spec.startswith("a"):  # without its sign
            return format(abs(value), spec[1:])
        if not spec and 1e3 <= abs(value) < 1e6:
            return f"{value:.0f}"
        return format(value, spec or ".3g")
