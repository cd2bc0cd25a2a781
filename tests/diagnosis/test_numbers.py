"""Every number of the rules, written out apart from the code: one that moves is one line here.

What the numbers do is in `test_rules.py`; here it is seen that none of them moves by accident.
"""

from collections import defaultdict

from lightning_stab.diagnosis import RULES, THRESHOLDS, Engine, Facts, Rule
from lightning_stab.diagnosis.rule import when

NUMBERS = """
flag_set 0.5
all_identical 0.7
large_start_loss 6.0
enormous_start_loss 50.0
small_start 0.05
large_start 5.0
nowhere 1e-07
no_agreement 2.0
no_sign 1.0
somewhere 0.01
never_a_gradient 0.99
enough_steps 8.0
early_steps 15.0
tens_of_steps 40.0
many_steps 95.0
hundreds_of_steps 190.0
early_samples 60.0
hundreds_of_samples 150.0
many_rectified 0.2
one_class_batches 0.6
many_unreachable 0.05
many_impossible 0.02
few_values 3.5
strong_dropout 0.85
strong_decay 0.3
vanishing_depth -3.0
severe_vanishing_depth -6.0
exploding_depth 3.0
joint_shrinkage -2.0
severe_exploding_depth 6.0
vanishing_time -6.0
exploding_time 3.0
exploding_growth 3.0
dead_layer 0.95
many_dead 0.8
half_saturated 0.5
many_saturated 0.7
large_attention_logits 30.0
large_update 0.2
notable_update 0.05
total_update 1.0
nearly_gone 0.01
small_update 0.0001
no_rate 1e-30
no_loss 1e-30
short_reach 0.03
limited_reach 0.2
straight 0.5
risen_at_all 1.1
risen_loss 3.0
sudden_rise 3.0
enormous_rise 10.0
worse_than_constant 1.5
small_improvement 0.05
clear_trend 4.0
faint_trend 2.0
notable_fall 0.02
steep_fall 0.1
outlying 30.0
large_spike 3.0
recurring 2.5
much_lost 0.5
grown_weights 6.0
shrunk_weights 0.2
swinging_loss 0.5
any_nonfinite_loss 0.5
standing_still 0.01
some_progress 0.05
few_rows 50.0
nothing_learnt 0.03
hardly_learnt 0.15
little_learnt 0.33
half_learnt 0.5
well_learnt 0.8
nearly_all_dropped 0.95
worse_in_training -0.2
notable_gap 0.2
all_learnt 0.9
as_simple_models 0.85
none_at_all 0.0
poor_skill 0.2
some_skill 0.65
high_skill 0.9
few_norm_rows 3.5
large_input 10.0
huge_input 50.0
small_input 0.02
large_target 30.0
small_prediction 0.3
fallen_metric 0.2
unlike 1.5
wide_gap 0.35
risen_validation_loss 0.2
early 0.3
one_epoch 0.95
half_the_run 0.5
most_of_the_run 0.75
whole_run 0.99
short_run 1000.0
far_into_the_run 0.4
some_epochs 2.95
near_simple_models 0.8
below_simple_models 0.65
far_from_simple_models 0.55
little_reach 0.1
huge_growth 30.0
clear_fall 0.05
level_with_simple_models 0.9
notable_relapse 0.3
small_gap 0.1
very_few_rows 20.0
some_shift 0.4
notable_shift 0.5
"""
# of each rule the first letter of its severity and at how many moments in a row it has to hold;
# a star where it is over at once
RULES_OF = """
non-finite: e1 e1 e1 e1 e1 e1 e1 e1 e1 i1
output-activation: e1 e1 e1 e1 e1 e1 w2 w2
shape-mismatch: e1
labels: e1 e1 e2 w2 w2 w2 w2
unused-parameters: e1 w1 w2 w2 w2 w1
target-scale: w2 w2 w1 e1 e1
input-scale: w2 e1 e1 e1 w2 w2 w1 w2 w1 w1
bad-initialization: e1 w1 w2 w2 w1 w2 w2 w2 w1 e1 e1 e2
dead-units: e2 e2 w2 e2
saturated-units: w2 w2
vanishing-gradient: e2 w2 w2 w2
exploding-gradient: e2 w2 w2 e2 e2 e1 i2 w2
learning-rate-too-high: e2 e1 w2 w2 w2 w2 w2 w2 w2 w2 w1 w1 w1
learning-rate-too-low: w2 w2 w2 w1 w2 w1 w1 w2 w2
over-regularized: w2 w2 w2 w2 w1
batch-size: w2 w2
loss-function: w2 w1 w1 w2 w2 w1 w1 w1 w2
loss-spike: w2 w2 w2 w2 i1*
oscillating-loss: w2 i3
plateau: w2 w2 w2 w2 i3
too-short: w1 w1 w1 w1 w1 w1
validation-data: w2 w2 w1
metric: i2
overfitting: w2 w2 w1 w2 w2 w2 w1 i2 i2
underfitting: w1
"""


def test_every_threshold_is_the_number_that_is_written_here():
    written = dict(line.split() for line in NUMBERS.strip().splitlines())
    assert {name: float(number) for name, number in written.items()} == dict(THRESHOLDS)


def test_every_rule_has_the_severity_and_the_patience_that_are_written_here():
    found = defaultdict(list)
    for rule in RULES:
        event = "*" if rule.is_event else ""
        found[rule.id].append(f"{rule.severity[0]}{rule.persistence}{event}")
    written = dict(line.split(": ") for line in RULES_OF.strip().splitlines())
    assert {id_: " ".join(own) for id_, own in found.items()} == written


def made_up(limit, **options):
    return Rule("plateau", "warning", when(f"depth {limit}"), "It is {depth}.", (), **options)


def test_what_is_exactly_at_a_threshold_is_not_beyond_it():
    """``>`` and ``<`` are false there, ``not>`` and ``not<`` true; an unknown value likewise."""
    for sign, below, at, above in (
        (">", False, False, True), ("<", True, False, False),
        ("not>", True, True, False), ("not<", False, True, True),
    ):  # fmt: skip
        unknown = sign.startswith("not")
        for depth, holds in ((1.0, below), (2.0, at), (3.0, above), (None, unknown)):
            facts = Facts(step=1) if depth is None else Facts(step=1, depth=depth)
            found = Engine({"two": 2.0}, rules=[made_up(f"{sign} two")]).update(facts)
            assert bool(found) == holds, (sign, depth)
            if found and depth is not None:
                evidence = found[0].evidence["depth"]
                assert (evidence.value, evidence.sign) == (depth, sign)
                assert (evidence.threshold, evidence.name) == (2.0, "two")


def test_of_several_layers_the_evidence_is_the_worst():
    for sign, worst in ((">", 5.0), ("not<", 5.0), ("<", 3.0), ("not>", 3.0)):
        limit = 2.0 if sign in (">", "not<") else 9.0
        rule = Rule("plateau", "warning", when(f"dead_fraction {sign} it"), "{layers}", ())
        engine = Engine({"it": limit}, rules=[rule])
        (found,) = engine.update(Facts(step=1, dead_fraction={"a": 3.0, "b": 5.0, "c": 4.0}))
        assert found.evidence["dead_fraction"].value == worst
        assert found.layers == ("a", "b", "c")


def test_a_text_names_three_layers_and_counts_the_others():
    rule = Rule("plateau", "warning", when("dead_fraction > it"), "In {layers}: {number}.", ())
    for number, words in ((1, "`0`"), (3, "`0`, `1`, `2`"), (5, "`0`, `1`, `2` and 2 more")):
        dead = {str(n): 1.0 for n in range(number)}
        (found,) = Engine({"it": 0.5}, rules=[rule]).update(Facts(step=1, dead_fraction=dead))
        assert found.message == f"In {words}: {number}."


def test_numbers_in_advice_are_short():
    texts = ["{step}", "{depth}", "{depth:/10}", "{depth:*3}", "{depth:a.1f}", "{depth:.0%}"]
    rule = Rule("plateau", "warning", when("depth < it"), "So.", tuple(texts))
    (found,) = Engine({"it": 0.0}, rules=[rule]).update(Facts(step=4321, depth=-12345.678))
    assert list(found.advice) == ["4321", "-12346", "-1.2e+03", "-3.7e+04", "12345.7", "-1234568%"]
    (found,) = Engine({"it": 0.0}, rules=[rule]).update(Facts(step=999999, depth=-999.6))
    assert list(found.advice)[:2] == ["999999", "-1e+03"]
    (found,) = Engine({"it": 0.0}, rules=[rule]).update(Facts(step=1000000, depth=-1000.0))
    assert list(found.advice)[:2] == ["1e+06", "-1000"]


def test_a_threshold_of_one_id_is_for_that_id_alone():
    rules = [made_up("> two"), Rule("metric", "warning", when("depth > two"), "So.", ())]
    for given, reported in (
        ({"two": 2.0}, ["plateau"]), ({"two": 2.0, "plateau.two": 9.0}, ["metric"]),
        ({"two": 2.0, "metric.two": 9.0, "plateau.two": 9.0}, []),
    ):  # fmt: skip
        found = Engine(given, rules=rules).update(Facts(step=1, depth=3.0))
        assert [f.id for f in found] == reported


def test_an_event_is_new_again_when_its_cool_down_is_over_to_the_step():
    for cool_down, steps in ((None, 1000), (7, 7)):
        engine = Engine({"two": 2.0}, rules=[made_up("> two", is_event=True)],
                        **({} if cool_down is None else {"cool_down": cool_down}))  # fmt: skip
        assert engine.update(Facts(step=5, depth=3.0))
        assert not engine.update(Facts(step=5 + steps - 1, depth=3.0))
        assert engine.update(Facts(step=5 + steps, depth=3.0))
