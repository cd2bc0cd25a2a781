"""Every rule: it fires just beyond its thresholds, and is quiet just short of any of them."""

import math
from dataclasses import replace

import pytest
from helpers.diagnosis_moments import (
    ALWAYS_KNOWN,
    HEALTHY,
    SICK,
    UNKNOWN_WORD,
    beyond,
    facts_of,
    fields_named_in,
    is_by_layer,
    is_guard,
    moment,
    rule_names,
    short_of,
    told,
    told_by_all,
    values_beyond,
)

from lightning_stab.diagnosis import IDS, RULES, SEVERITIES, THRESHOLDS, Engine, Facts
from lightning_stab.diagnosis.facts import BY_LAYER, NAMES, OF_VALIDATION
from lightning_stab.diagnosis.rule import COMPARISONS, when

EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=rule_names())
EVERY_CONDITION = pytest.mark.parametrize(
    ("rule", "condition"),
    [(rule, condition) for rule in RULES for condition in rule.conditions],
    ids=[f"{n}-{c.fact}{c.sign}" for n, r in zip(rule_names(), RULES, strict=True)
         for c in r.conditions],
)  # fmt: skip
CONTRACT = {
    "vanishing-gradient", "exploding-gradient", "dead-units", "saturated-units",
    "bad-initialization", "learning-rate-too-high", "learning-rate-too-low", "loss-spike",
    "non-finite", "oscillating-loss", "plateau", "overfitting", "input-scale", "target-scale",
    "output-activation", "unused-parameters",
}  # fmt: skip


def moments(rule, count=None, **arguments):
    count = rule.persistence if count is None else count
    return [moment(rule, step, **arguments) for step in range(1, count + 1)]


@EVERY_RULE
def test_a_rule_fires_just_beyond_all_its_thresholds(rule):
    (finding,) = told(rule, moments(rule))
    assert (finding.id, finding.severity) == (rule.id, rule.severity)
    assert finding.step == moments(rule)[-1].step
    assert finding.layers == (SICK if is_by_layer(rule) else ())
    assert finding.source == rule.source != ""


@EVERY_RULE
def test_it_alone_is_told_although_all_rules_look(rule):
    """The facts of one sickness are not told under a second name."""
    assert {finding.id for finding in told_by_all(moments(rule))} == {rule.id}


@EVERY_RULE
def test_the_evidence_is_every_number_beside_its_threshold(rule):
    (finding,) = told(rule, moments(rule))
    values = values_beyond(rule)
    assert set(finding.evidence) == {c.fact for c in rule.conditions}
    for condition in rule.conditions:
        evidence = finding.evidence[condition.fact]
        assert evidence.value == values[condition.fact]
    by_fact = {c.fact: c for c in rule.conditions}
    for fact, evidence in finding.evidence.items():
        assert evidence.sign == by_fact[fact].sign
        assert evidence.name == by_fact[fact].threshold
        assert evidence.threshold == THRESHOLDS[evidence.name]


@EVERY_RULE
def test_message_and_advice_are_filled_in(rule):
    (finding,) = told(rule, moments(rule))
    assert finding.advice
    for text in (finding.message, *finding.advice):
        assert text.strip() == text != ""
        assert not set("{}") & set(text), text
        assert not UNKNOWN_WORD.search(text), text
        assert "  " not in text, text
    assert finding.message.endswith(".")


@EVERY_RULE
def test_texts_name_only_what_is_known_when_the_rule_fires(rule):
    known = {c.fact for c in rule.conditions} | set(ALWAYS_KNOWN) | {"step", "epoch"}
    known |= {"layers", "number"} if is_by_layer(rule) else set()
    for text in (rule.message, *rule.advice):
        assert fields_named_in(text) <= known, text


@EVERY_CONDITION
def test_a_rule_is_quiet_just_short_of_any_one_threshold(rule, condition):
    short = {condition.fact: short_of(condition, THRESHOLDS[condition.threshold])}
    assert told(rule, moments(rule, 3 * rule.persistence, changed=short)) == []


@EVERY_CONDITION
def test_an_unknown_fact_never_makes_a_rule_fire(rule, condition):
    """``not`` alone holds for the unknown, as a guard against what is known to be well."""
    numbers = values_beyond(rule)
    unknown = {**numbers, condition.fact: math.nan}
    absent = {name: value for name, value in numbers.items() if name != condition.fact}
    expected = int(is_guard(condition) and condition.fact not in BY_LAYER)
    for known in (unknown, absent):
        facts = [facts_of(rule, known, step) for step in range(rule.persistence)]
        assert len(told(rule, facts)) == expected


@EVERY_RULE
def test_a_rule_waits_for_its_persistence(rule):
    assert told(rule, moments(rule, rule.persistence - 1)) == []


@EVERY_RULE
def test_a_streak_that_is_broken_begins_anew(rule):
    short = {c.fact: short_of(c, THRESHOLDS[c.threshold]) for c in rule.conditions}
    healthy = moment(rule, 50, changed=short)
    few = moments(rule, rule.persistence - 1)
    assert told(rule, [*few, healthy, *few]) == []
    assert len(told(rule, [*few, healthy, *few, moment(rule, 99)])) == 1


@EVERY_RULE
def test_conditions_by_layer_hold_at_one_and_the_same_layer(rule):
    by_layer = [c for c in rule.conditions if c.fact in BY_LAYER]
    for condition in by_layer[1:]:
        facts = moment(rule)
        value = beyond(condition, THRESHOLDS[condition.threshold])
        elsewhere = replace(facts, **{condition.fact: {HEALTHY: value}})
        assert told(rule, [elsewhere] * rule.persistence) == []


@EVERY_RULE
def test_the_evidence_of_several_layers_is_the_worst(rule):
    by_layer = [c for c in rule.conditions if c.fact in BY_LAYER and not is_guard(c)]
    for condition in by_layer:
        limit = THRESHOLDS[condition.threshold]
        worse = limit + (1.0 if condition.sign == ">" else -1.0)
        mild = {SICK[0]: beyond(condition, limit), SICK[1]: worse}
        facts = replace(moment(rule), **{condition.fact: mild})
        (finding,) = told(rule, [facts] * rule.persistence)
        assert finding.evidence[condition.fact].value == worse


@EVERY_RULE
def test_a_rule_follows_its_thresholds_when_they_are_replaced(rule):
    """Each threshold by name: moved by one, the firing point moves with it."""
    for condition in rule.conditions:
        moved = {condition.threshold: THRESHOLDS[condition.threshold] + 1.0}
        all_numbers = {**THRESHOLDS, **moved}
        facts = moments(rule, thresholds=all_numbers)
        (finding,) = told(rule, facts, thresholds=moved)
        assert finding.evidence[condition.fact].threshold in all_numbers.values()
        numbers = values_beyond(rule, all_numbers)
        numbers[condition.fact] = short_of(condition, all_numbers[condition.threshold])
        facts = [facts_of(rule, numbers, s, all_numbers) for s in range(rule.persistence)]
        assert told(rule, facts, thresholds=moved) == []


@EVERY_RULE
def test_a_rule_is_well_formed(rule):
    assert rule.id in IDS
    assert rule.severity in SEVERITIES
    assert rule.persistence >= 1
    assert not all(map(is_guard, rule.conditions)), "it would fire on nothing"
    assert len({(c.fact, c.sign) for c in rule.conditions}) == len(rule.conditions)
    for condition in rule.conditions:
        assert condition.fact in NAMES
        assert condition.sign in COMPARISONS
        assert condition.threshold in THRESHOLDS


def test_every_threshold_is_a_finite_number_that_some_rule_reads():
    used = {c.threshold for rule in RULES for c in rule.conditions}
    assert set(THRESHOLDS) == used
    assert all(isinstance(v, (int, float)) and math.isfinite(v) for v in THRESHOLDS.values())


def test_the_ids_are_those_that_were_promised_and_each_has_a_rule():
    assert set(IDS) == CONTRACT
    assert {rule.id for rule in RULES} == CONTRACT
    assert len(IDS) == len(set(IDS))


def test_a_run_that_learns_well_is_informed_and_not_warned_of_these():
    """A loss that is noisy or at rest is no sickness unless learning or validation suffers."""
    harm = {"learnt", "validation_fall", "validation_learnt", "generalization_gap", "epoch"}
    for id_ in ("oscillating-loss", "overfitting", "plateau", "loss-spike"):
        rules = [rule for rule in RULES if rule.id == id_]
        assert any(rule.severity == "info" for rule in rules), id_
        for rule in rules:
            facts = {c.fact for c in rule.conditions}
            assert rule.severity != "error"
            assert rule.severity == "info" or facts & harm, rule


def test_nothing_is_found_where_nothing_is_known():
    engine = Engine()
    assert [engine.update(Facts(step=s, epoch=10.0 * s)) for s in range(9)] == [[]] * 9
    empty = {name: {} for name in BY_LAYER}
    assert [engine.update(Facts(step=s, epoch=99.0, **empty)) for s in range(9)] == [[]] * 9


def test_a_comparison_is_strict_and_false_for_the_unknown_but_a_guard_is_neither():
    (above,), (below,), (not_above,), (not_below,) = (
        when(f"depth {sign} a") for sign in (">", "<", "not>", "not<")
    )
    for value, expected in (
        (2.0, (True, False, False, True)),
        (1.0, (False, False, True, True)),
        (0.0, (False, True, True, False)),
        (math.nan, (False, False, True, True)),
        (math.inf, (True, False, False, True)),
        (-math.inf, (False, True, True, False)),
    ):
        signs = (above, below, not_above, not_below)
        assert tuple(c.holds(value, 1.0) for c in signs) == expected


@EVERY_RULE
def test_only_what_needs_no_persistence_is_said_before_the_first_step(rule):
    facts = [replace(moment(rule), moment="start")] * (rule.persistence + 1)
    assert len(told(rule, facts)) == int(rule.persistence == 1)


@EVERY_RULE
def test_a_moment_counts_only_where_something_of_the_rule_was_measured_anew(rule):
    """Two validations within one look, or two looks between validations, are no persistence."""
    is_about_validation = any(c.fact in OF_VALIDATION for c in rule.conditions)
    asked, other = ("validation", "look") if is_about_validation else ("look", "validation")
    mixed = [replace(moment(rule, step), moment=m) for step in range(9) for m in (asked, other)]
    engine = Engine(rules=[rule])
    for place, facts in enumerate(mixed):
        new = engine.update(facts)
        assert bool(new) == (place == 2 * (rule.persistence - 1))
    assert told(rule, [facts for facts in mixed if facts.moment == other]) == []
