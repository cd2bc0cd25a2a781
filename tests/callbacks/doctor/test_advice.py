"""Advice beside callbacks that are there: none of them is to be added."""

import re

import pytest

from lightning_stab import GradientClipping, StepGuard, TrainingDoctor, WeightInitialization
from lightning_stab.callbacks.doctor.advice import advise_beside
from lightning_stab.diagnosis import Finding
from lightning_stab.diagnosis.rules import RULES

NAMES = "StepGuard|GradientClipping|WeightInitialization"
LINES = sorted({line for rule in RULES for line in rule.advice if re.search(NAMES, line)})
THERE = [StepGuard("skip", "rewind"), GradientClipping(), WeightInitialization()]


def advised(callbacks, *lines):
    finding = Finding("plateau", "info", 1, (), {}, "Nothing moves.", lines)
    return list(advise_beside([TrainingDoctor(), *callbacks], finding).advice)


@pytest.mark.parametrize("line", LINES)
def test_nothing_that_is_there_is_to_be_added(line):
    assert advised([], line) == [line]
    for callback in THERE:
        for shown in advised([callback], line):
            assert f"Add `{type(callback).__name__}" not in shown
            assert "Add ." not in shown
    assert all(not re.search(r"Add `\w+\(", shown) for shown in advised(THERE, line))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_some_advice_is_always_left(rule):
    assert advised(THERE, *rule.advice)


def test_a_guard_with_another_policy_is_to_be_set():
    line = 'Add `StepGuard(on_nonfinite="skip")`: a bad step is then not taken.'
    assert advised([StepGuard("rewind")], line) == []
    assert advised([StepGuard("raise")], line) == [
        'Set `on_nonfinite="skip"` in the `StepGuard` that is there: a bad step is then not taken.'
    ]


def test_alternatives_are_left():
    line = "Add `WeightInitialization()`, or use LeakyReLU or GELU instead of ReLU."
    assert advised([WeightInitialization()], line) == ["Use LeakyReLU or GELU instead of ReLU."]
    line = (
        'Add `StepGuard(on_spike="skip")`, which skips such steps,'
        ' and `GradientClipping(rule="norm", threshold=1.0)`.'
    )
    clip = 'Add `GradientClipping(rule="norm", threshold=1.0)`.'
    assert advised([StepGuard("skip", "skip")], line) == [clip]
    lower = "Use a lower `threshold` in the `GradientClipping` that is there."
    assert advised(THERE, line) == [lower]
