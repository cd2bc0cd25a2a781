"""One line of advice: what is there already is not added, and numbers are short."""

import math
import re
from dataclasses import replace

from helpers.diagnosis_moments import EVERY_RULE

from lightning_stab.diagnosis import Evidence, Facts, Finding
from lightning_stab.diagnosis.cures import CURES, Cure, advice_for, advised, estimates, names_of
from lightning_stab.diagnosis.cures.advice import _line, filled, missing_settings
from lightning_stab.diagnosis.cures.table import SUITE

VALUES = {"rate": 0.00123456789, "unknown": math.nan, "steps": 400}
PARTS = {"lr": "{rate}", "mode": "on", "n": 3, "steps": "{steps}", "left_out": "{nothing}"}


def cure(*callbacks, what="Use {rate} for {steps} steps."):
    return Cure("x", what, callbacks=tuple((SUITE + name, parts) for name, parts in callbacks))


def test_without_its_callbacks_a_row_says_its_sentence_with_short_numbers():
    assert _line(cure(("A", PARTS)), VALUES, {}) == "Use 0.00123457 for 400 steps."
    assert _line(cure(("A", PARTS)), VALUES, {"B": {}}) == "Use 0.00123457 for 400 steps."
    assert _line(cure(), VALUES, {}) == "Use 0.00123457 for 400 steps."


def test_a_number_that_nobody_has_measured_is_not_advised():
    assert _line(cure(("A", {"lr": "{unknown}"}), what="Use {unknown}."), VALUES, {}) == ""
    assert _line(cure(what="Use {unknown}."), VALUES, {}) == ""
    assert _line(cure(("A", {"lr": "{rate}"})), VALUES, {}) != ""
    assert _line(cure(("A", {"lr": math.nan})), VALUES, {}) != ""  # a number of the row's own


def test_what_is_there_of_another_name_is_not_advised():
    adam = Cure("x", "Use Adam.", code=("Adam()",), instead_of=("Adam", "AdamW"))
    assert _line(adam, VALUES, {"SGD": {}}) == "Use Adam."
    assert _line(adam, VALUES, {"AdamW": {}}) == ""


def test_where_one_of_several_is_there_the_others_are_to_be_added():
    both = cure(("A", PARTS), ("B", {}))
    call = 'A(lr=0.00123457, mode="on", n=3, steps=400)'
    assert _line(both, VALUES, {"B": {}}) == f"Add `{call}`."
    assert _line(both, VALUES, {"A": {}}) == "Add `B()`."
    assert _line(both, VALUES, {"A": {}, "B": {}}) == ""


def test_callbacks_with_settings_that_matter_are_to_be_changed():
    guard = cure(("StepGuard", {"on_nonfinite": "skip", "on_spike": "skip"}))
    for there, line in (
        ({"on_nonfinite": "raise", "on_spike": "ignore"},
         'Set `on_nonfinite="skip", on_spike="skip"` in the `StepGuard` that is there.'),
        ({"on_nonfinite": "skip", "on_spike": "ignore"},
         'Set `on_spike="skip"` in the `StepGuard` that is there.'),
        ({"on_nonfinite": "skip", "on_spike": "rewind"}, ""),
    ):  # fmt: skip
        assert _line(guard, VALUES, {"StepGuard": there}) == line
    clip = cure(("GradientClipping", {"rule": "norm"}), ("A", {}))
    assert _line(clip, VALUES, {"GradientClipping": {"rule": "value"}}) == (
        "Use a lower `threshold` in the `GradientClipping` that is there, and add `A()`."
    )
    settings = cure(("OptimizerSettings", {"learning_rate": "{rate}"}))
    assert _line(settings, VALUES, {"OptimizerSettings": {"learning_rate": 0.1}}) == (
        "Set `learning_rate=0.00123457` in the `OptimizerSettings` that is there."
    )


def test_estimates_are_put_in_by_their_names_and_unknown_ones_left_out():
    assert filled(PARTS, VALUES) == {"lr": VALUES["rate"], "mode": "on", "n": 3, "steps": 400}
    assert filled({"{mode}": {"a": "{n}"}}, {"mode": "x", "n": 0}) == {"x": {"a": 0}}
    assert filled({"{mode}": "a", "b": "c"}, {"mode": ""}) == {"b": "c"}
    assert missing_settings({"a": 1, "b": "2"}, {"a": "1", "b": 3}) == {"b": "2"}
    assert missing_settings({"a": None}, {}) == {}  # what nobody has set is None


@EVERY_RULE
def test_every_rule_has_its_advice_from_the_table_and_none_of_its_own(rule):
    assert rule.advice == ()
    names = names_of(rule.id, (c.fact for c in rule.conditions))
    rows = [cure for cure in CURES if cure.is_advised_for(names)]
    assert rows
    # one of them at least says something where nothing but the finding is known
    assert advised(names, estimates(Facts()), {})
    for cure in rows:
        assert not re.search(r"tenth of it|ten times|tenfold|a third", cure.what)
        for word in ("Lower the learning rate", "Raise the learning rate"):
            if word in cure.what:
                assert {"learning_rate"} < cure.named  # from what to what


def test_what_was_tried_in_vain_is_advised_no_more():
    found = Finding("plateau", "warning", 1, (), {"warming_up": Evidence(0.0, ">", 1.0, "x")},
                    "So.", ("As it was.",))  # fmt: skip
    values = estimates(Facts(learning_rate=0.1, update_ratio=1e-3))
    lines = advice_for(found, values, {})
    assert [line[:9] for line in lines] == ["Raise the", "Fit one b"]
    assert advice_for(found, values, {}, ["higher-learning-rate"]) == lines[1:]
    assert advice_for(found, values, {}, ["higher-learning-rate", "fit-one-batch"]) == ()
    assert advice_for(replace(found, evidence={}), values, {}) == ("As it was.",)
