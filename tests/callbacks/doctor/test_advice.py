"""Advice from the table of cures: with the run's numbers, and nothing that is there already."""

import re

import pytest
from helpers.diagnosis_moments import EVERY_RULE

from lightning_stab import (
    GradientClipping,
    LearningRateDecay,
    StepGuard,
    TrainingDoctor,
    WeightInitialization,
)
from lightning_stab.callbacks.doctor.advice import NAMES, advise_beside
from lightning_stab.diagnosis import Evidence, Facts, Finding
from lightning_stab.diagnosis.cures import CURES
from lightning_stab.diagnosis.facts import NAMES as FACTS
from lightning_stab.diagnosis.rules import IDS, RULES
from lightning_stab.prescription.candidates import NEEDS, WANTED

THERE = [
    StepGuard("skip", "rewind"),
    GradientClipping(),
    WeightInitialization(),
    LearningRateDecay(),
]
MEASURED = Facts(learning_rate=0.5, early_update_ratio=0.4, update_ratio=2e-6)


def finding_of(rule):
    facts = [condition.fact for condition in rule.conditions]
    evidence = {fact: Evidence(1.0, ">", 0.5, "flag_set") for fact in facts}
    return Finding(rule.id, rule.severity, 9, (), evidence, rule.message, ("The rule's own.",))


def advised(rule_id, *facts, callbacks=()):
    evidence = {fact: Evidence(1.0, ">", 0.5, "flag_set") for fact in facts}
    finding = Finding(rule_id, "warning", 9, (), evidence, "It is so.", ("The rule's own.",))
    return list(advise_beside([TrainingDoctor(), *callbacks], finding, MEASURED, 0.73, 400).advice)


@EVERY_RULE
def test_some_advice_is_always_left_and_nothing_that_is_there_is_to_be_added(rule):
    for callbacks in ([], THERE):
        lines = advise_beside(callbacks, finding_of(rule), MEASURED, 0.73, 400).advice
        assert lines
        for line in lines:
            assert "{" not in line
            assert "nan" not in line
            for callback in callbacks:
                assert not re.search(rf"[Aa]dd `{type(callback).__name__}\(", line)


def test_numbers_are_estimated_from_the_run():
    lines = advised("learning-rate-too-high", "early_update_ratio")
    assert lines[0] == "Lower the learning rate from 0.5 to 0.02, and start again."
    assert '`GradientClipping(rule="norm", threshold=0.7)`' in lines[1]
    lines = advised("learning-rate-too-low", "update_ratio")
    assert lines[0] == "Raise the learning rate from 0.5 to 2000."


@pytest.mark.parametrize("ratio", [0.0, float("nan"), 1e9, 1e-9])
def test_a_wild_measurement_moves_the_rate_by_a_bounded_factor(ratio):
    from lightning_stab.diagnosis.cures import estimates

    known = estimates(Facts(learning_rate=0.1, early_update_ratio=ratio, update_ratio=ratio))
    assert 1e-5 <= known["lower_rate"] <= 0.1 / 3
    assert 0.3 <= known["higher_rate"] <= 1e3
    assert known["clip_threshold"] == 1.0


def test_a_guard_with_another_policy_is_to_be_set():
    lines = advised("non-finite", "nonfinite_losses", callbacks=[StepGuard("raise")])
    assert lines[0] == 'Set `on_nonfinite="skip"` in the `StepGuard` that is there.'
    lines = advised("non-finite", "nonfinite_losses", callbacks=[StepGuard("rewind")])
    assert not any("StepGuard" in line for line in lines)
    both = advised("loss-spike", "spiky_epochs", callbacks=[StepGuard("skip")])
    assert both[0] == (
        'Set `on_spike="skip"` in the `StepGuard` that is there, and add'
        ' `GradientClipping(rule="norm", threshold=0.7)`.'
    )
    both = advised("loss-spike", "spiky_epochs", callbacks=[StepGuard("skip", "skip")])
    assert both[0] == 'Add `GradientClipping(rule="norm", threshold=0.7)`.'


@pytest.mark.parametrize(
    ("rule_id", "fact", "words"),
    [
        ("output-activation", "doubled_softmax", "Remove the activation at the end"),
        ("unused-parameters", "unoptimized", "Give `self.parameters()` to the optimizer"),
        ("vanishing-gradient", "gradient_time_log10", "Add `WeightInitialization("),
        ("exploding-gradient", "stale_gradients", "Call `optimizer.zero_grad()`"),
        ("non-finite", "validation_nonfinite", "Compare one validation batch"),
        ("overfitting", "validation_fall", "Stop at the best epoch"),
        ("plateau", "validation_learnt", "Check that inputs and labels belong together"),
    ],
)
def test_advice_is_that_of_the_table_for_every_kind_of_finding(rule_id, fact, words):
    assert advised(rule_id, fact)[0].startswith(words)


def test_the_table_names_what_exists():
    assert len({cure.id for cure in CURES}) == len(CURES)
    for cure in CURES:
        assert cure.is_automatic or cure.code
        for name in (*cure.answers, *cure.tried_for, *cure.late_for):
            id_, _, fact = name.partition(":")
            assert id_ in IDS
            assert not fact or fact in FACTS
            facts = [{c.fact for c in rule.conditions} for rule in RULES if rule.id == id_]
            assert not fact or any(fact in each for each in facts)
        assert set(cure.needs) <= set(NEEDS)
    assert set(WANTED) <= set(NEEDS)
    assert {"WeightInitialization", "OptimizerSettings", "StandardizeInputs"} <= set(NAMES)
