"""Moments of a run that lie just beyond a rule's thresholds, or just on the other side of one."""

import math
import re
import string

from helpers.cases import for_each

from lightning_stab.diagnosis import RULES, THRESHOLDS, Engine, Facts
from lightning_stab.diagnosis.facts import BY_LAYER

UNKNOWN_WORD = re.compile(r"\b(nan|None)\b")  # a message may speak of NaN
FAULTY, HEALTHY = ("first.faulty", "second.faulty"), "third.healthy"
ALWAYS_KNOWN = {"learning_rate": 0.01, "depth": 8.0}  # what texts may name beside the conditions


def name_of(rule):
    """Return a name for a rule, with its place, because several share an id."""
    return f"{RULES.index(rule)}-{rule.id}-{rule.severity}"


EVERY_RULE = for_each(RULES, name_of)


TOWARDS = {">": math.inf, "<": -math.inf, "not>": math.inf, "not<": -math.inf}


def is_guard(condition):
    """Say whether a condition holds for the unknown too, and so cannot fire alone."""
    return condition.sign.startswith("not")


def beyond(condition, limit):
    """Return the number next to ``limit``, or ``limit`` itself, at which the condition holds."""
    step = math.nextafter(limit, TOWARDS[condition.sign])
    return float(limit) if is_guard(condition) else step


def short_of(condition, limit):
    """Return the number next to ``limit``, or ``limit`` itself, at which it does not hold."""
    step = math.nextafter(limit, TOWARDS[condition.sign])
    return step if is_guard(condition) else float(limit)


def values_beyond(rule, thresholds=THRESHOLDS):
    """Return for each fact of the rule the number at which all its conditions hold just so.

    Where a fact has a lower and an upper limit it is the one next to the lower.
    """
    values = {}
    for condition in sorted(rule.conditions, key=lambda c: c.sign == ">"):
        values[condition.fact] = beyond(condition, thresholds[condition.threshold])
    return values


def moment(rule, step=1, changed=None, thresholds=THRESHOLDS):
    """Return facts that hold just beyond all thresholds of a rule.

    Args:
        rule: the rule.
        step: of the moment.
        changed: numbers of some of the facts, instead.
        thresholds: the numbers by name.
    """
    numbers = {**values_beyond(rule, thresholds), **(changed or {})}
    return facts_of(rule, numbers, step, thresholds)


def facts_of(rule, numbers, step=1, thresholds=THRESHOLDS):
    """Return facts with these numbers; a fact by layer has them at two layers, not at a third."""
    known = {**ALWAYS_KNOWN, "step": step}
    healthy = {c.fact: short_of(c, thresholds[c.threshold]) for c in rule.conditions}
    for fact, value in numbers.items():
        if fact in BY_LAYER:
            known[fact] = {**dict.fromkeys(FAULTY, value), HEALTHY: healthy[fact]}
        else:
            known[fact] = value
    return Facts(**known)


def reported(rule, moments, **arguments):
    """Return what an engine with this rule alone reports of these moments."""
    engine = Engine(rules=[rule], **arguments)
    return [finding for facts in moments for finding in engine.update(facts)]


def reported_by_all(moments, **arguments):
    """Return what an engine with every rule reports of these moments."""
    engine = Engine(**arguments)
    return [finding for facts in moments for finding in engine.update(facts)]


def is_by_layer(rule):
    """Say whether a rule names layers."""
    return any(c.fact in BY_LAYER for c in rule.conditions)


def fields_named_in(text):
    """Return the names in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
