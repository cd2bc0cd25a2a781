"""The engine: reported once, the deepest cause alone, and nothing forgotten over a restart."""

import io
import json
from dataclasses import fields, replace
from itertools import product

import pytest
import torch
from helpers.cases import for_each
from helpers.diagnosis_moments import (
    EVERY_RULE,
    FAULTY,
    HEALTHY,
    is_by_layer,
    moment,
    reported_by_all,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_stab.diagnosis import IDS, RULES, SEVERITIES, THRESHOLDS, Engine, Facts, Rule
from lightning_stab.diagnosis.facts import BY_LAYER, MOMENTS, NAMES, UNKNOWN
from lightning_stab.diagnosis.rule import when
from lightning_stab.diagnosis.rules import CAUSES, EXPLAINS

APART = ("non-finite", "output-activation", "unused-parameters", "labels", "shape-mismatch")
ALARMS = {rule.id for rule in RULES if rule.severity != "info"}


def moments(rule, start=1, count=None):
    count = rule.persistence if count is None else count
    return [moment(rule, step) for step in range(start, start + count)]


def first_rule(id_, alarm=False):
    """Return the first rule of an id; with ``alarm``, one that is more than information."""
    return next(r for r in RULES if r.id == id_ and not (alarm and r.severity == "info"))


def together(*facts):
    """Return one moment that has what any of these moments has; the first that knows one counts."""
    merged = {}
    for each in facts:
        for f in fields(Facts):
            value = getattr(each, f.name)
            is_known = bool(value) if f.name in BY_LAYER else value == value and value != f.default
            if is_known:
                merged.setdefault(f.name, value)
    return Facts(**merged)


@EVERY_RULE
def test_a_fault_that_lasts_is_reported_once(rule):
    """However long it lasts: also an event is not reported again within its cool-down."""
    engine = Engine(rules=[rule], cool_down=1000)
    reported = [engine.update(facts) for facts in moments(rule, count=50)]
    assert sum(len(new) for new in reported) == 1
    assert reported[rule.persistence - 1] == engine.findings


@EVERY_RULE
def test_only_an_event_is_reported_again_and_only_after_its_cool_down(rule):
    engine = Engine(rules=[rule], cool_down=100)
    for facts in moments(rule):
        engine.update(replace(facts, step=10))
    again = {}
    for step in (109, 110, 209, 210):
        again[step] = [f for _ in range(rule.persistence)
                       for f in engine.update(moment(rule, step))]  # fmt: skip
    if "step" in {c.fact for c in rule.conditions}:
        return
    expected = {109: 0, 110: 1, 209: 0, 210: 1} if rule.is_event else dict.fromkeys(again, 0)
    assert {step: len(new) for step, new in again.items()} == expected


def made_up(severity, threshold, id_="plateau", **options):
    return Rule(id_, severity, when(f"depth > {threshold}"), "It is {depth}.", ("Do.",), **options)


def test_what_becomes_more_severe_is_reported_again_and_what_becomes_milder_is_not():
    limits = {"low": 1.0, "middle": 2.0, "high": 3.0}
    rules = [made_up(s, t) for s, t in zip(SEVERITIES, limits, strict=True)]
    engine = Engine(limits, rules=rules)
    reported = [
        [f.severity for f in engine.update(Facts(depth=d))] for d in (1.5, 2.5, 1.5, 3.5, 2.5)
    ]
    assert reported == [["info"], ["warning"], [], ["error"], []]


def test_of_two_severities_at_one_moment_the_more_severe_is_reported_alone():
    limits = {"low": 1.0, "middle": 2.0, "high": 3.0}
    rules = [made_up(s, t) for s, t in zip(SEVERITIES, limits, strict=True)]
    assert [f.severity for f in Engine(limits, rules=rules).update(Facts(depth=9.0))] == ["error"]


@for_each(sorted(ALARMS, key=IDS.index))
def test_the_alarm_of_a_deeper_cause_silences_what_it_explains(deep):
    """In one moment and at every later one."""
    cause = replace(first_rule(deep, alarm=True), persistence=1)
    for late in sorted(EXPLAINS[deep]):
        effect = replace(first_rule(late), persistence=1)
        both = together(moment(cause), moment(effect))
        if CAUSES[deep] < CAUSES[late]:
            engine = Engine(rules=[effect, cause])
            assert [f.id for f in engine.update(both)] == [deep]
        engine = Engine(rules=[effect, cause])
        assert [f.id for f in engine.update(moment(cause))] == [deep]
        still = [together(moment(cause), facts) for facts in moments(effect, start=50, count=9)]
        later = [f for facts in still for f in engine.update(facts)]
        assert later == [], late


def test_alarms_of_one_rank_are_reported_one_at_a_time():
    """Peers explain each other: of two at one moment the more severe is reported."""
    ranks = {id_: [i for i in IDS if CAUSES[i] == CAUSES[id_] and i not in APART] for id_ in IDS}
    for first, second in ((p[0], p[1]) for p in ranks.values() if len(p) > 1):
        rules = [
            Rule(first, "warning", when("depth > one_epoch"), "So.", ("Do.",)),
            Rule(second, "error", when("depth > one_epoch"), "So.", ("Do.",)),
        ]
        assert [f.id for f in Engine(rules=rules).update(Facts(depth=1e9))] == [second]


@for_each(product(IDS, APART))
def test_what_stands_apart_is_never_silenced(deep, late):
    if late == deep:
        return
    cause, effect = first_rule(deep), first_rule(late)
    reported = reported_by_all([*moments(cause), *moments(effect, start=20)])
    assert late in {f.id for f in reported}
    both = together(moment(effect), moment(cause))
    reported = reported_by_all([replace(both, step=both.step + s) for s in range(9)])
    assert late in {f.id for f in reported}


@for_each([i for i in IDS if i not in APART])
def test_information_silences_nothing(id_):
    gentle = Rule(id_, "info", when("input_spread > one_epoch"), "So.", ("Do.",))
    engine = Engine(rules=[gentle, *RULES])
    engine.update(Facts(input_spread=1e9))
    assert [f.severity for f in engine.findings] == ["info"]
    for rule in RULES:
        if rule.id in EXPLAINS[id_]:
            fresh = Engine(rules=[gentle, rule])
            fresh.update(Facts(input_spread=1e9))
            for facts in moments(rule):
                fresh.update(facts)
            assert rule.id in {f.id for f in fresh.findings}


def test_explanations_are_of_known_ids_and_never_of_what_stands_apart():
    assert set(EXPLAINS) == set(CAUSES) == set(IDS)
    for deep, late in ((cause, effect) for cause in IDS for effect in EXPLAINS[cause]):
        assert deep != late
        assert late in IDS
    assert not {late for explained in EXPLAINS.values() for late in explained} & set(APART)
    order = ["non-finite", "bad-initialization", "dead-units", "vanishing-gradient",
             "learning-rate-too-high", "plateau"]  # fmt: skip
    assert [CAUSES[id_] for id_ in order] == sorted(CAUSES[id_] for id_ in order)


@EVERY_RULE
def test_an_ignored_id_is_not_reported_and_explains_nothing(rule):
    assert rule.id not in {f.id for f in reported_by_all(moments(rule), ignore=[rule.id])}
    effects = [r for r in RULES if r.id in EXPLAINS[rule.id]]
    for effect in effects[:2]:
        engine = Engine(rules=[rule, effect], ignore=[rule.id])
        both = together(moment(effect), moment(rule))
        for step in range(rule.persistence + effect.persistence):
            engine.update(replace(both, step=both.step + step))
        assert {f.id for f in engine.findings} == {effect.id}


@EVERY_RULE
def test_an_ignored_layer_is_left_out_and_the_others_are_reported(rule):
    def layers(*ignore):
        reported = reported_by_all(moments(rule), ignore=ignore)
        return reported[0].layers if reported else None

    if not is_by_layer(rule):
        assert layers(f"{rule.id}:*") == ()
        return
    assert layers(f"{rule.id}:first.*") == FAULTY[1:]
    assert layers(f"{rule.id}:{FAULTY[0]}", f"{rule.id}:second.*") is None
    assert layers(f"{rule.id}:*.faulty") is None
    assert layers(f"{rule.id}:{HEALTHY}") == FAULTY
    other = next(i for i in IDS if i != rule.id)
    assert layers(f"{other}:*") == FAULTY


def test_a_streak_is_not_kept_for_an_ignored_layer():
    rule = next(r for r in RULES if is_by_layer(r))
    engine = Engine(rules=[replace(rule, persistence=3)], ignore=[f"{rule.id}:*"])
    for facts in moments(rule, count=9):
        engine.update(facts)
    assert engine.findings == []
    assert engine.state_dict()["streaks"] == [0]


def test_other_thresholds_do_not_leak_into_the_defaults():
    before = dict(THRESHOLDS)
    given_ = {next(iter(THRESHOLDS)): 1e9}
    engine = Engine(given_)
    engine.thresholds["another"] = 1.0
    assert dict(THRESHOLDS) == before
    assert given_ == {next(iter(THRESHOLDS)): 1e9}
    with pytest.raises(TypeError):
        THRESHOLDS["another"] = 1.0


@EVERY_RULE
def test_what_was_found_and_counted_survives_a_restart(rule):
    whole, first, second = Engine(), Engine(), Engine()
    shown = moments(rule, count=rule.persistence + 3)
    expected = [[f.to_dict() for f in whole.update(facts)] for facts in shown]
    reported = []
    for facts in shown:  # a restart after every moment
        reported.append([f.to_dict() for f in first.update(facts)])
        second.load_state_dict(through_a_checkpoint(first.state_dict()))
        assert [f.to_dict() for f in second.findings] == [f.to_dict() for f in first.findings]
        first, second = second, Engine()
    assert reported == expected
    assert sum(len(new) for new in reported) == 1


def through_a_checkpoint(state):
    """Return the state as it comes back from a checkpoint that may hold plain values only."""
    assert json.loads(json.dumps(state)) == state
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_a_state_is_a_copy():
    rule = RULES[0]
    engine = Engine()
    engine.update(moment(rule))
    state = engine.state_dict()
    kept = json.dumps(state)
    for step in range(5):
        engine.update(moment(RULES[2], step))
    assert json.dumps(state) == kept
    other = Engine()
    other.load_state_dict(state)
    other.update(moment(RULES[2]))
    assert json.dumps(state) == kept


def test_the_streaks_of_other_rules_are_forgotten():
    rule = next(r for r in RULES if r.persistence > 1)
    few = Engine(rules=[rule])
    for facts in moments(rule, count=rule.persistence - 1):
        few.update(facts)
    engine = Engine()
    engine.load_state_dict(few.state_dict())
    assert engine.update(moment(rule)) == []


def near_thresholds(name):
    """Return numbers from both sides of every threshold that a fact is compared with."""
    limits = sorted({THRESHOLDS[c.threshold] for r in RULES for c in r.conditions
                     if c.fact == name} | {0.0})  # fmt: skip
    numbers = [UNKNOWN, *(x + d for x in limits for d in (-1e-3, 0.0, 1e-3)), -1e6, 1e6]
    if name in BY_LAYER:
        return st.dictionaries(st.sampled_from(["a", "b.c"]), st.sampled_from(numbers), max_size=2)
    return st.sampled_from(numbers)


SHOWN = st.builds(
    Facts,
    **{n: near_thresholds(n) for n in NAMES - {"moment", "step"}},
    moment=st.sampled_from(["", *MOMENTS]),
    step=st.integers(0, 5000),
)


@given(st.lists(SHOWN, max_size=8))
@settings(max_examples=60)
def test_it_is_never_a_flood(shown):
    engine = Engine()
    for facts in shown:
        before = list(engine.findings)
        new = engine.update(facts)
        taken = [f.id for f in engine.changed if f.state == "withdrawn"]
        standing = [(f.id, f.step) for f in before if f.id not in taken or not f.is_alarm]
        assert [(f.id, f.step) for f in engine.findings] == standing + [(f.id, f.step) for f in new]
        assert [CAUSES[f.id] for f in new] == sorted(CAUSES[f.id] for f in new)
    for place, finding in enumerate(engine.findings):
        earlier = engine.findings[:place]
        assert not any(f.is_alarm and finding.id in EXPLAINS[f.id] for f in earlier)
        same = [SEVERITIES.index(f.severity) for f in earlier if f.id == finding.id]
        is_event = any(r.is_event for r in RULES if r.id == finding.id)
        assert is_event or all(s < SEVERITIES.index(finding.severity) for s in same)


@given(st.lists(SHOWN, min_size=1, max_size=6), st.integers(0, 5))
@settings(max_examples=30)
def test_a_restart_anywhere_changes_nothing(shown, place):
    whole, first, second = Engine(), Engine(), Engine()
    for facts in shown:
        whole.update(facts)
    for facts in shown[:place]:
        first.update(facts)
    second.load_state_dict(first.state_dict())
    for facts in shown[place:]:
        second.update(facts)
    assert json.dumps(second.state_dict()) == json.dumps(whole.state_dict())


@given(SHOWN, st.sampled_from(IDS))
@settings(max_examples=30)
def test_an_ignored_id_is_never_reported(facts, id_):
    assert id_ not in {f.id for f in reported_by_all([facts] * 4, ignore=[id_])}
