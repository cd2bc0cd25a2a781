"""Every rule: it fires just beyond its thresholds, and is quiet just short of any of them."""

import math
from dataclasses import fields, replace

import pytest
from helpers.cases import for_each
from helpers.diagnosis_moments import (
    ALWAYS_KNOWN,
    EVERY_RULE,
    FAULTY,
    HEALTHY,
    UNKNOWN_WORD,
    beyond,
    facts_of,
    fields_named_in,
    is_by_layer,
    is_guard,
    moment,
    reported,
    reported_by_all,
    short_of,
    values_beyond,
)

from lightning_stab.diagnosis import (
    IDS,
    RULES,
    SEVERITIES,
    THRESHOLDS,
    Condition,
    Engine,
    Facts,
    Rule,
)
from lightning_stab.diagnosis.facts import BY_LAYER, MEANINGS, NAMES, OF_VALIDATION, SAMPLED_STEP
from lightning_stab.diagnosis.rule import COMPARISONS, when
from lightning_stab.diagnosis.rules import FAULTS
from lightning_stab.diagnosis.thresholds import GUARDS, TIMES
from lightning_stab.errors import InvalidArgumentError

EVERY_CONDITION = for_each([(rule, condition) for rule in RULES for condition in rule.conditions])
CONTRACT = {
    "vanishing-gradient", "exploding-gradient", "dead-units", "saturated-units",
    "bad-initialization", "learning-rate-too-high", "learning-rate-too-low", "loss-spike",
    "non-finite", "oscillating-loss", "plateau", "overfitting", "input-scale", "target-scale",
    "output-activation", "unused-parameters", "labels", "shape-mismatch", "loss-function",
    "batch-size", "over-regularized", "too-short", "validation-data", "metric",
    "underfitting",
}  # fmt: skip


def moments(rule, count=None, **arguments):
    count = rule.persistence if count is None else count
    return [moment(rule, step, **arguments) for step in range(1, count + 1)]


@EVERY_RULE
def test_a_rule_fires_just_beyond_all_its_thresholds(rule):
    (finding,) = reported(rule, moments(rule))
    assert (finding.id, finding.severity) == (rule.id, rule.severity)
    assert finding.step == moments(rule)[-1].step
    assert finding.layers == (FAULTY if is_by_layer(rule) else ())
    assert finding.source == rule.source != ""


@EVERY_RULE
def test_it_alone_is_reported_although_all_rules_are_evaluated(rule):
    """The facts of one fault are not reported under a second name."""
    assert {finding.id for finding in reported_by_all(moments(rule))} == {rule.id}


@EVERY_RULE
def test_the_evidence_is_every_number_beside_its_threshold(rule):
    (finding,) = reported(rule, moments(rule))
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
    (finding,) = reported(rule, moments(rule))
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
    assert reported(rule, moments(rule, 3 * rule.persistence, changed=short)) == []


@EVERY_CONDITION
def test_an_unknown_fact_never_makes_a_rule_fire(rule, condition):
    """``not`` alone holds for the unknown, as a guard against what is known to be well."""
    numbers = values_beyond(rule)
    unknown = {**numbers, condition.fact: math.nan}
    absent = {name: value for name, value in numbers.items() if name != condition.fact}
    expected = int(is_guard(condition) and condition.fact not in BY_LAYER)
    for known in (unknown, absent):
        facts = [facts_of(rule, known, step) for step in range(rule.persistence)]
        assert len(reported(rule, facts)) == expected


@EVERY_RULE
def test_a_rule_waits_for_its_persistence(rule):
    assert reported(rule, moments(rule, rule.persistence - 1)) == []


@EVERY_RULE
def test_a_streak_that_is_broken_begins_again(rule):
    short = {c.fact: short_of(c, THRESHOLDS[c.threshold]) for c in rule.conditions}
    healthy = moment(rule, 50, changed=short)
    few = moments(rule, rule.persistence - 1)
    assert reported(rule, [*few, healthy, *few]) == []
    assert len(reported(rule, [*few, healthy, *few, moment(rule, 99)])) == 1


@EVERY_RULE
def test_conditions_by_layer_hold_at_one_and_the_same_layer(rule):
    by_layer = [c for c in rule.conditions if c.fact in BY_LAYER]
    for condition in by_layer[1:]:
        facts = moment(rule)
        value = beyond(condition, THRESHOLDS[condition.threshold])
        elsewhere = replace(facts, **{condition.fact: {HEALTHY: value}})
        assert reported(rule, [elsewhere] * rule.persistence) == []


@EVERY_RULE
def test_the_evidence_of_several_layers_is_the_worst(rule):
    by_layer = [c for c in rule.conditions if c.fact in BY_LAYER and not is_guard(c)]
    for condition in by_layer:
        limit = THRESHOLDS[condition.threshold]
        worse = limit + (1.0 if condition.sign == ">" else -1.0)
        mild = {FAULTY[0]: beyond(condition, limit), FAULTY[1]: worse}
        facts = replace(moment(rule), **{condition.fact: mild})
        (finding,) = reported(rule, [facts] * rule.persistence)
        assert finding.evidence[condition.fact].value == worse


@EVERY_RULE
def test_a_rule_follows_its_thresholds_when_they_are_replaced(rule):
    """Each threshold by name: moved by one, the firing point moves with it."""
    for condition in rule.conditions:
        moved = {condition.threshold: THRESHOLDS[condition.threshold] + 1.0}
        all_numbers = {**THRESHOLDS, **moved}
        facts = moments(rule, thresholds=all_numbers)
        (finding,) = reported(rule, facts, thresholds=moved)
        assert finding.evidence[condition.fact].threshold in all_numbers.values()
        numbers = values_beyond(rule, all_numbers)
        numbers[condition.fact] = short_of(condition, all_numbers[condition.threshold])
        facts = [facts_of(rule, numbers, s, all_numbers) for s in range(rule.persistence)]
        assert reported(rule, facts, thresholds=moved) == []


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
    """A loss that is noisy or at rest is no fault unless learning or validation suffers."""
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
    assert len(reported(rule, facts)) == int(rule.persistence == 1)


@EVERY_RULE
def test_a_moment_counts_only_where_something_of_the_rule_was_measured(rule):
    """Two validations between sampled steps, or two of those between validations, do not last."""
    is_about_validation = any(c.fact in OF_VALIDATION for c in rule.conditions if c.sign in "<>")
    counts, other = ("validation", SAMPLED_STEP)
    if not is_about_validation:
        counts, other = other, counts
    mixed = [replace(moment(rule, step), moment=m) for step in range(9) for m in (counts, other)]
    engine = Engine(rules=[rule])
    for place, facts in enumerate(mixed):
        new = engine.update(facts)
        assert bool(new) == (place == 2 * (rule.persistence - 1))
    assert reported(rule, [facts for facts in mixed if facts.moment == other]) == []


# a name that does not exist is an error, where it is written


def a_rule(conditions="depth > early", message="So.", advice=("Do.",), id_="plateau"):
    return Rule(id_, "info", when(conditions), message, advice)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Facts(dead_fractoin={}), r"got 'dead_fractoin'\. Did you mean 'dead_fraction'\?"),
        (lambda: replace(Facts(), dept=3.0), r"got 'dept'\. Did you mean 'depth'\?"),
        (lambda: Facts(moment="look"), r"`moment` must be one of 'start', .*, got 'look'\."),
        (lambda: Condition("lern", ">", "early"), r"`fact` must be a field of `Facts`, got 'lern'"),
        (lambda: Condition("learnt", "=>", "early"), r"`sign` must be one of .*, got '=>'"),
        (lambda: when("learned > early"), r"got 'learned'\. Did you mean 'learnt'\?"),
        (lambda: when("epoch > early and ordinary_data and ordinary_input"), "'ordinary_inputs'"),
        (lambda: a_rule(message="{dept} layers."), r"got 'dept'\. Did you mean 'depth'\?"),
        (lambda: a_rule(advice=("Do.", "Lower {learning_rat:/10}.")), "'learning_rate'"),
        (lambda: Engine(rules=[a_rule("epoch > late")]), r"`condition.threshold` must be one of"),
        (lambda: Engine(rules=[a_rule("epoch > an_epoc")]), "got 'an_epoc'"),
        (lambda: Engine(rules=[a_rule(id_="plato")]), r"`rule.id` must be one of .*, got 'plato'"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_where_it_is_written(make, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_threshold_of_the_callers_own_may_be_named():
    engine = Engine({"late": 9.0}, rules=[a_rule("epoch > late")])
    assert len(engine.update(Facts(epoch=10.0))) == 1


def test_old_names_of_thresholds_are_taken_with_a_warning():
    rule = a_rule("epoch > one_epoch")
    with pytest.warns(FutureWarning, match="'an_epoch' is now called 'one_epoch'"):
        engine = Engine({"an_epoch": 5.0}, rules=[rule])
    assert engine.update(Facts(epoch=4.0)) == []
    with pytest.warns(FutureWarning, match=r"'plateau.an_epoch' is now called 'plateau.one_epoch'"):
        engine = Engine({"plateau.an_epoch": 3.0}, rules=[rule])
    assert len(engine.update(Facts(epoch=4.0))) == 1


def test_every_fact_and_every_fault_says_what_it_is():
    assert set(MEANINGS) == {f.name for f in fields(Facts)}
    for meaning in (*MEANINGS.values(), *(fault.meaning for fault in FAULTS)):
        assert meaning.strip() == meaning != ""
        assert not meaning.endswith(".")
    assert all(f"{name}: " in Facts.__doc__ for name in NAMES)


def test_every_guard_is_of_conditions_that_cannot_fire():
    for text in GUARDS.values():
        assert all(map(is_guard, when(text)))


def test_every_length_of_time_is_in_epochs_and_steps_and_rows():
    """An epoch may have one step, and a batch one row."""
    for text in TIMES.values():
        assert [c.fact for c in when(text)] == ["epoch", "step", "samples"]


def test_no_rule_but_one_of_form_waits_for_epochs_alone():
    for rule in RULES:
        facts = {c.fact for c in rule.conditions}
        assert "epoch" not in facts or facts & {"step", "samples"}, rule
