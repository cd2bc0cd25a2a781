"""A rule as data: conditions on facts, and what to say when they hold."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lightning_stab.diagnosis.facts import BY_LAYER, Facts
from lightning_stab.diagnosis.finding import Evidence

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    # these two also where the value is unknown
    "not>": lambda value, limit: not value > limit,
    "not<": lambda value, limit: not value < limit,
}


@dataclass(frozen=True)
class Condition:
    """One fact beyond one threshold; of a fact by layer, at one layer at least.

    Attributes:
        fact: the name of a field of ``Facts``.
        sign: ``>`` or ``<``, both false for an unknown value; or ``not>`` or ``not<``, which are
            true for it.
        threshold: the name of a threshold.
    """

    fact: str
    sign: str
    threshold: str

    def holds(self, value: float, limit: float) -> bool:
        """Compare a value with the number of the threshold."""
        return COMPARISONS[self.sign](value, limit)


def when(text: str) -> tuple[Condition, ...]:
    """Return the conditions that a text such as ``"depth > a and epoch < b"`` names.

    Example:
        >>> when("epoch > settled")
        (Condition(fact='epoch', sign='>', threshold='settled'),)
    """
    conditions = []
    for part in text.split(" and "):
        fact, sign, threshold = part.split()
        conditions.append(Condition(fact, sign, threshold))
    return tuple(conditions)


@dataclass(frozen=True)
class Rule:
    """When to say what.

    Attributes:
        id: the name of the sickness; several rules may find the same one in different ways.
        severity: of the finding.
        conditions: all of them have to hold, those by layer at one and the same layer.
        message: one sentence; may name facts in braces, and ``{layers}``.
        advice: what to do, the best first; may name facts too.
        persistence: at how many moments in a row the conditions have to hold.
        is_event: whether it is over at once (a spike), so that it may be found again later.
        source: where it comes from.
    """

    id: str
    severity: str
    conditions: tuple[Condition, ...]
    message: str
    advice: tuple[str, ...]
    persistence: int = 1
    is_event: bool = False
    source: str = "measured for this rule, see docs/training_doctor.md"


@dataclass(frozen=True)
class Match:
    """The layers at which a rule's conditions hold, and the numbers that show it."""

    layers: tuple[str, ...]
    evidence: Mapping[str, Evidence]


def match(
    rule: Rule, facts: Facts, thresholds: Mapping[str, float], silenced: frozenset[str]
) -> Match | None:
    """Return where the rule's conditions hold; None if nowhere.

    Args:
        rule: the rule.
        facts: what was measured.
        thresholds: every threshold by name.
        silenced: layers that are not looked at for this rule.
    """
    layers: set[str] | None = None
    for condition in rule.conditions:
        limit, value = thresholds[condition.threshold], getattr(facts, condition.fact)
        if condition.fact in BY_LAYER:
            held = {n for n, v in value.items() if condition.holds(v, limit) and n not in silenced}
            layers = held if layers is None else layers & held
            if not layers:
                return None
        elif not condition.holds(value, limit):
            return None
    order = [c.fact for c in rule.conditions if c.fact in BY_LAYER]
    names = [n for n in getattr(facts, order[0]) if n in (layers or ())] if order else []
    return Match(tuple(names), _evidence(rule, facts, thresholds, names))


def _evidence(
    rule: Rule, facts: Facts, thresholds: Mapping[str, float], layers: list[str]
) -> dict[str, Evidence]:
    evidence = {}
    for c in rule.conditions:
        value = getattr(facts, c.fact)
        if c.fact in BY_LAYER:
            worst = max if c.sign in (">", "not<") else min
            value = worst(value[name] for name in layers)
        evidence[c.fact] = Evidence(float(value), c.sign, thresholds[c.threshold], c.threshold)
    return evidence
