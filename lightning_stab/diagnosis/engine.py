"""From facts to findings: one alarm per cause, only what persists, never a flood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lightning_stab.arguments import one_of
from lightning_stab.diagnosis.facts import BY_LAYER, NAMES, OF_VALIDATION, SAMPLED_STEP, Facts
from lightning_stab.diagnosis.finding import SEVERITIES, SHOWN_LAYERS, Evidence, Finding
from lightning_stab.diagnosis.rule import Rule, match
from lightning_stab.diagnosis.rules import CAUSES, EXPLAINS, IDS, RULES
from lightning_stab.diagnosis.thresholds import THRESHOLDS, current_names


class Engine:
    """Keeps what was found, and decides what is new.

    Of the rules that hold, those of the deepest cause are reported: where weights are NaN, nothing
    is said of a loss that stands still, and where gradients vanish from the start, no higher
    learning rate is advised. ``CAUSES`` is that order. A rule is reported once its conditions have
    held at ``persistence`` moments in a row; a fault is reported once, and again only if it has
    become more severe, or, for one that passes, after ``cool_down`` steps.

    Args:
        thresholds: numbers that replace the defaults, by name, or by ``id.name`` for one id.
        ignore: ids, or ``id:layer`` patterns, that are not reported.
        rules: the rules, all of the suite's by default.
        cool_down: steps before the same event is reported again.

    Raises:
        InvalidArgumentError: for a rule whose id or threshold does not exist.

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
        self.thresholds = {**THRESHOLDS, **current_names(thresholds or {})}
        self.ignore = tuple(ignore)
        self.rules = tuple(rules)
        self.cool_down = cool_down
        self.findings: list[Finding] = []
        self._streaks = [0] * len(self.rules)
        for rule in self.rules:
            one_of("rule.id", rule.id, IDS)
            for condition in rule.conditions:
                one_of("condition.threshold", condition.threshold, self.thresholds)

    def update(self, facts: Facts) -> list[Finding]:
        """Evaluate the rules at one moment; return what is new, the deepest cause first.

        Args:
            facts: what was measured up to this moment.
        """
        triggered = []
        for index, rule in enumerate(self.rules):
            if not _applies(rule, facts.moment):
                continue
            found = match(rule, facts, self._thresholds_of(rule), self._ignored_layers(rule, facts))
            self._streaks[index] = self._streaks[index] + 1 if found is not None else 0
            if found is None or rule.id in self.ignore:
                continue
            if self._streaks[index] >= rule.persistence:
                triggered.append((rule, *found))
        triggered.sort(key=lambda each: (CAUSES[each[0].id], -SEVERITIES.index(each[0].severity)))
        new = []
        for rule, layers, evidence in triggered:
            is_explained = any(f.is_alarm and rule.id in EXPLAINS[f.id] for f in self.findings)
            if not is_explained and not self._is_known(rule, facts):
                new.append(_finding(rule, layers, evidence, facts))
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
        start = rule.id + "."
        own = {n.removeprefix(start): v for n, v in self.thresholds.items() if n.startswith(start)}
        return {**self.thresholds, **own} if own else self.thresholds

    def _ignored_layers(self, rule: Rule, facts: Facts) -> frozenset[str]:
        patterns = [p.partition(":")[2] for p in self.ignore if p.startswith(rule.id + ":")]
        if not patterns:
            return frozenset()
        names = {n for c in rule.conditions if c.fact in BY_LAYER for n in getattr(facts, c.fact)}
        return frozenset(n for n in names if any(fnmatchcase(n, p) for p in patterns))

    def _is_known(self, rule: Rule, facts: Facts) -> bool:
        """Say whether the fault was reported, no less severe, and is no new event."""
        known = [f for f in self.findings if f.id == rule.id]
        severity = SEVERITIES.index(rule.severity)
        more_severe = all(SEVERITIES.index(f.severity) < severity for f in known)
        again = rule.is_event and known and facts.step - known[-1].step >= self.cool_down
        return not (more_severe or again)


def _finding(
    rule: Rule, layers: tuple[str, ...], evidence: Mapping[str, Evidence], facts: Facts
) -> Finding:
    known = {name: getattr(facts, name) for name in NAMES - BY_LAYER - {"moment"}}
    known |= {name: each.value for name, each in evidence.items()}
    values: dict[str, Any] = {name: _ShortNumber(value) for name, value in known.items()}
    more = len(layers) - SHOWN_LAYERS
    values["layers"] = ", ".join(f"`{name}`" for name in layers[:SHOWN_LAYERS])
    values["layers"] += f" and {more} more" if more > 0 else ""
    values["number"] = len(layers)
    return Finding(
        id=rule.id,
        severity=rule.severity,
        step=facts.step,
        layers=layers,
        evidence=evidence,
        message=rule.message.format_map(values),
        advice=tuple(line.format_map(values) for line in rule.advice),
        source=rule.source,
    )


def _applies(rule: Rule, moment: str) -> bool:
    """Say whether what a rule is about was measured at this moment."""
    if moment not in (SAMPLED_STEP, "validation"):
        return moment != "start" or rule.persistence == 1
    is_about_validation = any(c.fact in OF_VALIDATION for c in rule.conditions)
    return is_about_validation == (moment == "validation")


class _ShortNumber(float):
    """A number that prints itself short; ``/10`` and ``*10`` for advice, ``a`` without its sign."""

    def __format__(self, spec: str) -> str:
        value = float(self)
        if spec.startswith("/"):
            return f"{value / float(spec[1:]):.2g}"
        if spec.startswith("*"):
            return f"{value * float(spec[1:]):.2g}"
        if spec.startswith("a"):
            return format(abs(value), spec[1:])
        if not spec and 1e3 <= abs(value) < 1e6:
            return f"{value:.0f}"
        return format(value, spec or ".3g")
