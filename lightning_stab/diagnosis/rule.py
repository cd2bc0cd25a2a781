"""A rule as data: conditions on facts, and what to say when they hold."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from string import Formatter
from typing import Any

from lightning_stab.arguments import one_of
from lightning_stab.diagnosis.facts import BY_LAYER, Facts, check_fact
from lightning_stab.diagnosis.finding import Evidence
from lightning_stab.diagnosis.thresholds import ENDS, GUARDS, TIMES

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    # these two also where the value is unknown
    "not>": lambda value, limit: not value > limit,
    "not<": lambda value, limit: not value < limit,
}

NAMED = {**GUARDS, **TIMES, **ENDS}  # conditions by the names that rules give them


@dataclass(frozen=True)
class Condition:
    """One fact beyond one threshold; of a fact by layer, at one layer at least.

    Attributes:
        fact: the name of a field of ``Facts``.
        sign: ``>`` or ``<``, both false for an unknown value; or ``not>`` or ``not<``, which are
            true for it.
        threshold: the name of a threshold.

    Raises:
        InvalidArgumentError: for a fact or a sign that does not exist.
    """

    fact: str
    sign: str
    threshold: str

    def __post_init__(self) -> None:
        check_fact(self.fact)
        one_of("sign", self.sign, COMPARISONS)

    def holds(self, value: float, limit: float) -> bool:
        """Compare a value with the number of the threshold."""
        return COMPARISONS[self.sign](value, limit)


def when(text: str) -> tuple[Condition, ...]:
    """Return the conditions that a text such as ``"depth > a and epoch < b"`` names.

    Args:
        text: conditions and names of ``GUARDS``, ``TIMES`` and ``ENDS``, joined by "and".

    Example:
        >>> when("epoch > some_epochs")
        (Condition(fact='epoch', sign='>', threshold='some_epochs'),)
    """
    conditions: list[Condition] = []
    for part in text.split(" and "):
        words = part.split()
        if len(words) == 1:
            conditions += when(NAMED[one_of("guard", words[0], NAMED)])
        else:
            conditions.append(Condition(*words))
    return tuple(conditions)


@dataclass(frozen=True)
class Rule:
    """When to say what.

    Attributes:
        id: the name of the fault; several rules may find the same one in different ways.
        severity: of the finding.
        conditions: all of them have to hold, those by layer at one and the same layer.
        message: one sentence; may name facts in braces, and ``{layers}``.
        advice: lines of its own, in place of those of the table of cures; may name facts too. No
            rule of the suite has any: what to do stands in ``diagnosis/cures/table.py``.
        persistence: at how many moments in a row the conditions have to hold.
        is_event: whether it is over at once (a spike), so that it may be found again later.
        source: where it comes from.

    Raises:
        InvalidArgumentError: for a fact in a text that does not exist.
    """

    id: str
    severity: str
    conditions: tuple[Condition, ...]
    message: str
    advice: tuple[str, ...] = ()
    persistence: int = 1
    is_event: bool = False
    source: str = "measured for this rule, see docs/training_doctor.md"

    @cached_property
    def asked(self) -> frozenset[str]:
        """The facts that have to be known for it to hold."""
        return frozenset(c.fact for c in self.conditions if c.sign in (">", "<"))

    def __post_init__(self) -> None:
        for text in (self.message, *self.advice):
            for _, name, _, _ in Formatter().parse(text):
                if name is not None and name not in ("layers", "number"):
                    check_fact(name)


@dataclass(frozen=True)
class Fault:
    """One thing that can be wrong with a run, and the rules that find it."""

    id: str
    rank: int  # its place among the causes, the deepest at 0; several faults may share a rank
    meaning: str  # one clause
    rules: tuple[Rule, ...] = ()

    def found_by(self, *rules: Rule) -> Fault:
        """Return the fault with its rules, which take its id."""
        return replace(self, rules=tuple(replace(rule, id=self.id) for rule in rules))


def _rule(severity: str, conditions: str, message: str, **options: Any) -> Rule:
    """Return a rule of a `Fault`; most faults have to hold at two moments in a row."""
    return Rule("", severity, when(conditions), message, **{"persistence": 2, **options})


error, warning, info = (partial(_rule, severity) for severity in ("error", "warning", "info"))
error_at_once, warning_at_once = (partial(rule, persistence=1) for rule in (error, warning))


def match(
    rule: Rule, facts: Facts, thresholds: Mapping[str, float], ignored: frozenset[str]
) -> tuple[tuple[str, ...], dict[str, Evidence]] | None:
    """Return the layers at which the rule's conditions hold, and the numbers; None if nowhere."""
    layers: set[str] | None = None
    for condition in rule.conditions:
        limit, value = thresholds[condition.threshold], getattr(facts, condition.fact)
        if condition.fact in BY_LAYER:
            held = {n for n, v in value.items() if condition.holds(v, limit) and n not in ignored}
            layers = held if layers is None else layers & held
            if not layers:
                return None
        elif not condition.holds(value, limit):
            return None
    order = [c.fact for c in rule.conditions if c.fact in BY_LAYER]
    names = [n for n in getattr(facts, order[0]) if n in (layers or ())] if order else []
    evidence = {}
    for c in rule.conditions:
        value = getattr(facts, c.fact)
        if c.fact in BY_LAYER:
            worst = max if c.sign in (">", "not<") else min
            value = worst(value[name] for name in names)
        evidence[c.fact] = Evidence(float(value), c.sign, thresholds[c.threshold], c.threshold)
    return tuple(names), evidence
