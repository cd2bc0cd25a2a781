"""What once accused a healthy run, missed a sick one, or named its symptom, on made facts."""

import pytest

from lightning_stab.diagnosis import Engine, Facts
from lightning_stab.diagnosis.facts import SAMPLED_STEP

LONG = {"epoch": 10.0, "step": 300, "samples": 4000.0, "progress": 1.0}
NAN_WEIGHTS = {"nonfinite_weights": {"a": 1.0}}


def alarms(*moments, moment=SAMPLED_STEP, times=2):
    """Return the alarms that stand after these facts were seen some times each."""
    engine = Engine()
    for known in moments:
        for _ in range(times):
            engine.update(Facts(**{"moment": moment, **LONG, **known}))
    return [f.id for f in engine.findings if f.is_alarm]


@pytest.mark.parametrize("bad", [NAN_WEIGHTS, {"nonfinite_losses": 3.0}])
@pytest.mark.parametrize(
    ("start", "cause"),
    [
        ({"input_size": 300.0}, "input-scale"),
        ({"target_size": 700.0}, "target-scale"),
        ({"start_scale": 12.0}, "bad-initialization"),
        ({"input_size": 12.0}, "non-finite"),
        ({}, "non-finite"),
    ],
)
def test_what_is_nan_is_named_by_what_showed_at_the_start(bad, start, cause):
    assert alarms({"loss_ratio": 90.0, **bad, **start})[:1] == [cause]


def test_a_loss_that_is_nan_from_the_first_step_is_a_fault_of_the_loss():
    assert alarms({"nonfinite_losses": 1.0, "input_size": 4000.0}) == ["non-finite"]


def test_what_is_nan_is_said_also_where_the_loss_is_not_known_or_training_goes_on():
    assert alarms({**NAN_WEIGHTS, "input_size": 300.0}) == ["non-finite"]
    only_there = {"validation_nonfinite": 1.0, "input_size": 300.0, "learnt": 0.7}
    assert alarms({**only_there, "start_loss_ratio": 1.0}, moment="validation") == ["non-finite"]


def test_a_loss_that_is_infinite_for_a_moment_is_taken_back():
    once = {"nonfinite_losses": 1.0, "learnt": 0.9}
    assert alarms({**once}, {"nonfinite_losses": 0.0, "learnt": 0.9}, times=5) == []


def test_gradients_that_are_kept_are_an_error_only_where_little_is_learnt():
    kept = {"stale_gradients": 1.0}
    assert alarms({**kept, "learnt": 0.4}) == ["exploding-gradient"]
    assert alarms({**kept, "learnt": 0.8}) == []
    assert alarms({**kept, "learnt": 0.2}, {**kept, "learnt": 0.8}) == []
    engine = Engine()
    engine.update(Facts(step=3, **kept))
    engine.update(Facts(step=4, **kept))
    assert [f.severity for f in engine.findings] == ["info"]


def test_a_rise_of_the_first_losses_without_a_large_step_is_noise():
    risen = {"early_rise": 6.0, "learnt": 0.1, "falling": 1.0}
    assert alarms({**risen, "early_update_ratio": 0.02}) == []
    assert alarms({**risen, "early_update_ratio": 0.1}) == ["learning-rate-too-high"]


def test_dropout_that_validation_does_not_mind_is_none():
    strong = {"dropout": 0.98, "learnt": 0.25}
    assert alarms(strong) == ["over-regularized"]
    assert alarms({**strong, "validation_learnt": 0.93}) == []


def test_a_run_is_not_too_short_where_much_is_learnt_or_validation_gets_worse():
    falling = {"falling": 9.0, "recent_fall": 0.3, "learnt": 0.1}
    assert alarms(falling, moment="end") == ["too-short"]
    assert alarms({**falling, "improvement": 0.8}, moment="end") == []
    assert alarms({**falling, "learnt": 0.4}, moment="end") == []
    assert alarms({**falling, "validation_rise": 0.9}, moment="end") == []


def test_a_metric_that_falls_while_the_validation_loss_does_not_rise_is_noise():
    fallen = {"validation_fall": 0.25, "learnt": 0.97}
    assert alarms({**fallen, "validation_rise": 0.5}, moment="validation") == ["overfitting"]
    assert alarms({**fallen, "validation_rise": 0.1}, moment="validation") == []
    good = {**fallen, "validation_rise": 0.5, "validation_skill": 0.9}
    assert alarms(good, moment="validation") == []


def test_spikes_of_a_run_that_learns_are_no_alarm():
    spiky = {"spiky_epochs": 3.0, "falling": 1.0}
    assert alarms({**spiky, "learnt": 0.1}) == ["loss-spike"]
    assert alarms({**spiky, "learnt": 0.1, "validation_learnt": 0.5}) == []
    assert alarms({**spiky, "learnt": 0.4}) == []
    assert alarms({**spiky, "learnt": 0.1, "improvement": 0.7}) == []
    assert alarms({**spiky, "learnt": 0.1, "falling": 9.0}) == []


def test_targets_that_neighbours_do_not_share_are_named_where_the_weights_have_moved():
    blind = {"neighbour_agreement": 0.2, "validation_learnt": 0.05, "learnt": 0.05}
    moved = {**blind, "travelled": 0.1}
    assert alarms(moved, moment="validation") == ["labels"]
    assert "labels" not in alarms({**blind, "travelled": 1e-4}, moment="validation")
    assert "labels" not in alarms({**moved, "neighbour_agreement": 9.0}, moment="validation")
    assert "labels" not in alarms({**moved, "validation_learnt": 0.3}, moment="validation")
    assert "labels" not in alarms({**moved, "early_update_ratio": 0.5}, moment="validation")


def test_large_inputs_are_named_where_only_shuffled_pairs_say_what_is_learnt():
    large = {"input_size": 200.0, "learnt": 0.6}
    assert alarms(large) == ["input-scale"]
    assert alarms({**large, "start_loss_ratio": 3.0}) == []  # the loss's own baseline is known
    assert alarms({**large, "learnt": 0.9}) == []


def test_large_inputs_are_named_where_the_validation_metric_is_not_good():
    large = {"input_size": 200.0, "learnt": 0.9, "start_loss_ratio": 3.0}
    assert alarms({**large, "validation_skill": 0.6}, moment="validation") == ["input-scale"]
    assert alarms({**large, "validation_skill": 0.85}, moment="validation") == []
    wild = {**large, "validation_skill": 0.6, "input_peak": 900.0}  # a few rows, not the scale
    assert "input-scale" not in alarms(wild, moment="validation")


def test_dead_layers_are_found_although_the_last_bias_still_learns():
    dead = {"dead_fraction": {"a": 1.0}, "learnt": 0.0, "falling": 9.0, "highest_rate": 0.1}
    assert alarms({**dead, "travelled": 0.0}) == ["dead-units"]
    assert alarms({**dead, "travelled": 0.1}) == []


@pytest.mark.parametrize("form", ["error_of_probabilities", "exclusive_labels"])
def test_a_loss_that_does_not_suit_is_named_in_a_run_of_few_long_epochs(form):
    few = {"epoch": 2.0, form: 1.0, "learnt": 0.1, "falling": 0.5, "recent_improvement": 0.06}
    assert alarms(few) == ["loss-function"]
    assert alarms({**few, "falling": 3.0}) == []
    assert alarms({**few, "step": 100}) == []


def test_small_steps_of_an_error_of_probabilities_are_the_loss_functions():
    small = {"update_ratio": 6e-5, "improvement": 0.0, "warming_up": 0.0, "learnt": 0.0}
    small |= {"falling": 9.0}
    assert alarms(small) == ["learning-rate-too-low"]
    assert alarms({**small, "error_of_probabilities": 1.0}) == ["loss-function"]
    straight = {
        "reach": 0.05,
        "straightness": 0.95,
        "warming_up": 0.0,
        "learnt": 0.1,
        "falling": 0.5,
    }
    straight |= {"recent_fall": 0.0, "recent_improvement": 0.0}
    assert alarms(straight) == ["learning-rate-too-low"]
    assert alarms({**straight, "error_of_probabilities": 1.0}) == ["loss-function"]


def test_a_gradient_that_shrinks_in_a_net_that_learns_is_no_alarm():
    small = {"gradient_depth_log10": -8.0, "gradient_depth_start_log10": -8.0}
    assert alarms({**small, "learnt": 0.1}) == ["vanishing-gradient"]
    assert alarms({**small, "learnt": 0.8}) == []


def test_what_another_rule_does_not_know_keeps_no_alarm():
    """Else a rule about saturation holds an alarm of a net that has nothing to saturate."""
    high = {"early_rise": 6.0, "falling": 1.0, "early_update_ratio": 0.1}
    assert alarms({**high, "learnt": 0.0}, {**high, "learnt": 0.6}) == []


SYMPTOMS = {
    "learning-rate-too-high": {"early_rise": 6.0, "falling": 1.0, "early_update_ratio": 0.1},
    "too-short": {"falling": 9.0, "recent_fall": 0.3},
    "loss-spike": {"input_peak": 90.0},
    "plateau": {"falling": 1.0},
    "vanishing-gradient": {"gradient_depth_log10": -8.0, "gradient_depth_start_log10": -8.0},
    "saturated-units": {"saturated_fraction": {"a": 0.9}, "saturated_at_start": {"a": 0.9}},
}


@pytest.mark.parametrize("id_", SYMPTOMS)
def test_a_symptom_does_no_harm_where_the_validation_metric_is_good(id_):
    facts = {**SYMPTOMS[id_], "learnt": 0.0}
    moment = "end" if id_ == "too-short" else SAMPLED_STEP
    assert alarms(facts, moment=moment) == [id_]
    assert alarms({**facts, "validation_skill": 0.4}, moment=moment) == [id_]
    assert alarms({**facts, "validation_skill": 0.6}, moment=moment) == []


FORMS = {
    "exploding-gradient": ({"stale_gradients": 1.0}, 0.6, 0.7),
    "unused-parameters": ({"frozen_held": {"a": 1.0}}, 0.6, 0.7),
    "output-activation": ({"rectified_logits": 0.5}, 0.85, 0.95),
}


@pytest.mark.parametrize("id_", FORMS)
def test_what_is_wrong_by_its_form_is_said_unless_the_run_does_well(id_):
    """A training loss that has come down says less than the validation metric."""
    facts, poor, good = FORMS[id_]
    known = {**facts, "learnt": 0.85}
    assert alarms({**known, "validation_skill": poor}, moment="validation") == [id_]
    assert alarms({**known, "validation_skill": good}, moment="validation") == []


def test_nan_in_the_inputs_is_an_error_only_where_it_does_harm():
    some = {"nonfinite_inputs": 0.02}
    assert alarms({**some, "learnt": 0.1}) == ["non-finite"]
    assert alarms({**some, "learnt": 0.1, "validation_skill": 0.95}) == []  # the net fills them
    assert alarms({"nonfinite_inputs": 0.0, "learnt": 0.1}) == []


def test_batch_normalisation_over_two_images_is_named_where_little_is_learnt():
    few = {"norm_rows": 2.0, "norm_values": 512.0, "learnt": 0.0, "falling": 0.0}
    assert alarms(few) == ["batch-size"]
    assert "batch-size" not in alarms({**few, "norm_rows": 4.0})
    assert alarms({**few, "learnt": 0.7}) == []


def test_a_run_that_ends_below_simple_models_is_said_to_underfit_where_no_cause_is_found():
    low = {"validation_skill": 0.4, "skill_reached": 0.54, "learnt": 0.6}
    assert alarms(low, moment="end") == ["underfitting"]
    assert alarms({**low, "skill_reached": 0.56}, moment="end") == []
    assert alarms(low, moment="validation") == []  # it may still get there
    assert alarms({**low, "skill_reached": 0.75}, moment="end") == []
    assert alarms({**low, "warming_up": 1.0}, moment="end") == ["learning-rate-too-low"]
    assert alarms({**low, "on_purpose": 1.0}, moment="end") == []
    heart = {**low, "learnt": 0.9, "generalization_gap": 0.6}
    assert alarms(heart, moment="end") == ["overfitting"]
    cause = {**low, "learnt": 0.1, "start_scale": 9.0}
    assert alarms(cause, moment="end") == ["bad-initialization"]


def test_what_a_run_below_simple_models_shows_names_its_cause():
    low = {"validation_skill": 0.6, "skill_reached": 0.79, "learnt": 0.6}
    for shown, cause in (
        ({"start_scale": 0.01}, "bad-initialization"),
        ({"frozen_held": {"a": 1.0}, "validation_skill": 0.7}, "unused-parameters"),
        ({"early_update_ratio": 9.0, "highest_rise": 60.0}, "learning-rate-too-high"),
    ):
        assert alarms({**low, **shown}, moment="end") == [cause]
        assert alarms({**low, **shown, "skill_reached": 0.9}, moment="end") == []


def test_what_was_taken_back_may_be_said_at_the_end_again_at_once():
    """There is no second moment in which it could persist."""
    engine = Engine()
    high = {"early_update_ratio": 9.0, "highest_rise": 60.0}
    for known in ({"learnt": 0.1}, {"learnt": 0.1}, {"learnt": 0.6}, {"learnt": 0.6}):
        engine.update(Facts(**{"moment": SAMPLED_STEP, **LONG, **high, **known}))
    assert [f.id for f in engine.withdrawn] == ["learning-rate-too-high"]
    end = {"validation_skill": 0.6, "skill_reached": 0.7, "learnt": 0.6}
    engine.update(Facts(**{"moment": "end", **LONG, **high, **end}))
    assert [f.id for f in engine.findings if f.is_alarm] == ["learning-rate-too-high"]


def test_a_loss_of_probabilities_is_named_before_the_small_steps_that_come_of_it():
    small = {"error_of_probabilities": 1.0, "reach": 0.01, "validation_skill": 0.02,
             "learnt": -0.05, "straightness": 0.9, "recent_fall": 0.001}  # fmt: skip
    assert alarms(small, moment="validation") == ["loss-function"]
    others = {**small, "error_of_probabilities": 0.0}
    assert alarms({**others, "warming_up": 0.0, "falling": 1.0}) == ["learning-rate-too-low"]


def test_few_rows_that_are_learnt_by_heart_overfit_with_any_gap_of_the_losses():
    few = {"epoch_rows": 16.0, "learnt": 0.99, "validation_skill": 0.4, "generalization_gap": 0.1}
    assert alarms(few, moment="validation") == ["overfitting"]
    assert alarms({**few, "validation_skill": 0.6}, moment="validation") == []
    assert alarms({**few, "epoch_rows": 60.0}, moment="validation") == []


def test_small_inputs_are_not_to_blame_where_the_weights_start_too_small():
    small = {"input_size": 0.01, "learnt": 0.0, "falling": 0.0, "reach": 1.0}
    assert alarms(small) == ["input-scale"]
    assert alarms({**small, "start_scale": 0.006}) == ["bad-initialization"]


def test_weights_that_start_far_too_large_are_named_by_what_they_lead_to():
    large = {"start_scale": 9.0, "input_size": 25.0}
    assert alarms({**large, "unexplained": 8.0, "learnt": -7.0}) == ["bad-initialization"]
    assert alarms({**large, "prediction_size": 40.0, "learnt": 0.6}) == ["bad-initialization"]
    assert alarms({**large, "prediction_size": 4.0, "unexplained": 0.4, "learnt": 0.6}) == []
    ordinary = {"input_size": 25.0, "learnt": -7.0, "unexplained": 8.0, "falling": 0.0}
    assert alarms(ordinary) == ["input-scale"]


def test_large_targets_of_which_nothing_is_learnt_are_a_question_of_scale():
    large = {"target_size": 600.0, "prediction_size": 0.5, "learnt": 0.01, "falling": 0.0}
    assert alarms(large) == ["target-scale"]
    assert alarms({**large, "target_size": 2.0}) == ["plateau"]
    assert alarms({**large, "learnt": 0.1}) == []


def test_validation_rows_that_are_shifted_and_not_learnt_are_unlike():
    shifted = {"validation_shift": 0.7, "generalization_gap": 0.5, "learnt": 0.7,
               "validation_skill": 0.2}  # fmt: skip
    assert alarms(shifted, moment="validation") == ["validation-data"]
    assert alarms({**shifted, "validation_skill": 0.4}, moment="validation") == []
    assert alarms({**shifted, "validation_shift": 0.1}, moment="validation") == []


def test_a_net_that_has_learnt_its_rows_but_never_helped_in_validation_does_not_stand_still():
    rows = {"learnt": 0.9, "validation_learnt": -0.2, "validation_skill": 0.05,
            "generalization_gap": 1.0}  # fmt: skip
    assert alarms(rows, moment="validation") == ["overfitting"]


def test_a_net_that_learns_its_rows_by_heart_and_nothing_else_overfits():
    heart = {"learnt": 0.6, "validation_skill": 0.05, "generalization_gap": 0.8}
    assert alarms(heart, moment="validation") == ["overfitting"]
    assert alarms({**heart, "validation_skill": 0.4}, moment="validation") == []
    nothing = {"learnt": 0.1, "validation_skill": 0.05, "falling": 1.0}
    assert alarms(nothing, moment="validation") == ["plateau"]
    assert alarms({**nothing, "neighbour_agreement": 0.1, "travelled": 0.1},
                  moment="validation") == ["labels"]  # fmt: skip


def test_an_alarm_is_taken_back_at_a_step_although_another_rule_of_its_id_asks_validation():
    kept = {"stale_gradients": 1.0}
    assert alarms({**kept, "learnt": 0.2}, {**kept, "learnt": 0.8}) == []
    poor = {**kept, "learnt": 0.8, "validation_skill": 0.3}
    assert alarms({**kept, "learnt": 0.2}, poor) == ["exploding-gradient"]


SUSPECTS = {
    "input-scale": {"input_size": 200.0, "learnt": 0.2},
    "over-regularized": {"dropout": 0.98, "learnt": 0.2},
    "unused-parameters": {"frozen_held": {"body": 1.0}, "learnt": 0.2},
}


@pytest.mark.parametrize("id", SUSPECTS)
def test_a_run_that_is_as_good_as_simple_models_has_nothing_wrong_that_does_harm(id):
    suspect = {**SUSPECTS[id], "falling": 0.0, "validation_skill": 0.52}
    for moment in (SAMPLED_STEP, "validation"):
        as_good = {**suspect, "simple_skill": 0.6, "skill_reached": 0.86}
        assert alarms(as_good, moment=moment) == []
    assert id in alarms({**suspect, "skill_reached": 0.79})
    assert id in alarms(suspect)  # nothing is known of simple models


BEHIND = {  # what hardly any run without the fault shows together with an end behind simple models
    "target-scale": ({"target_size": 1300.0}, {"target_size": 3.0}),
    "exploding-gradient": ({"stale_gradients": 1.0}, {"stale_gradients": 0.0}),
    "learning-rate-too-high": ({"weight_growth": 96.0}, {"weight_growth": 5.0}),
    "learning-rate-too-low": (
        {"reach": 0.06, "warming_up": 0.0},
        {"reach": 0.13, "warming_up": 0.0},
    ),
    "validation-data": (
        {"validation_shift": 0.43, "generalization_gap": 0.3},
        {"validation_shift": 0.1, "generalization_gap": 0.3},
    ),
    "too-short": ({"step": 8, "epoch": 1.0}, {"step": 60, "epoch": 8.0}),
}


@pytest.mark.parametrize("id_", BEHIND)
def test_a_sign_of_one_fault_names_it_where_a_run_ends_behind_simple_models(id_):
    sign, none = BEHIND[id_]
    end = {"learnt": 0.75, "validation_skill": 0.75, "skill_reached": 0.88}
    assert alarms({**end, **sign}, moment="end") == [id_]
    assert alarms({**end, **none}, moment="end") == []
    assert alarms({**end, **sign, "skill_reached": 0.91}, moment="end") == []
    assert alarms({**end, **sign, "on_purpose": 1.0}, moment="end") == []
    assert alarms({**end, **sign, "progress": 0.6}, moment="validation") == []


def test_a_run_whose_losses_rise_again_ends_with_too_high_a_rate():
    again = {"relapse": 0.4, "validation_rise": 0.3, "learnt": 0.4, "validation_skill": 0.7,
             "skill_reached": 0.75}  # fmt: skip
    assert alarms(again, moment="end") == ["learning-rate-too-high"]
    for better in ({"relapse": 0.2}, {"validation_rise": 0.1}, {"skill_reached": 0.86}):
        assert alarms({**again, **better}, moment="end") == []


def test_a_dropout_of_nearly_all_is_named_where_the_metric_ends_low_whatever_simple_models_learn():
    drops = {"dropout": 0.98, "validation_skill": 0.47, "skill_reached": 1.4, "learnt": 0.6}
    assert alarms(drops, moment="end") == ["over-regularized"]
    assert alarms({**drops, "dropout": 0.9}, moment="end") == []
    assert alarms({**drops, "validation_skill": 0.55}, moment="end") == []


def test_a_handful_of_rows_with_a_gap_of_the_losses_overfits():
    rows = {"epoch_rows": 16.0, "learnt": 0.7, "validation_skill": 0.7, "generalization_gap": 0.12}
    assert alarms(rows, moment="end") == ["overfitting"]
    for more in ({"epoch_rows": 30.0}, {"generalization_gap": 0.05}, {"validation_skill": 0.85}):
        assert alarms({**rows, **more}, moment="end") == []


def test_a_run_that_falls_without_a_gap_and_has_not_come_to_simple_models_is_too_short():
    falls = {"falling": 10.0, "recent_fall": 0.07, "skill_reached": 0.81, "learnt": 0.75,
             "validation_skill": 0.75, "generalization_gap": 0.02, "epoch_rows": 240.0}  # fmt: skip
    assert alarms(falls, moment="end") == ["too-short"]
    for other in ({"falling": 3.0}, {"recent_fall": 0.03}, {"skill_reached": 0.87},
                  {"generalization_gap": 0.3}, {"epoch_rows": 40.0}, {"step": 80}):  # fmt: skip
        assert alarms({**falls, **other}, moment="end") == []


HARMLESS = {
    "output-activation": (
        {"rectified_logits": 0.4, "learnt": 0.81, "validation_skill": 0.87},
        0.86,
    ),
    "loss-function": (
        {"error_of_probabilities": 1.0, "learnt": 0.4, "validation_skill": 0.7},
        0.81,
    ),
    "over-regularized": ({"dropout": 0.98, "learnt": 0.2, "validation_skill": 0.7}, 0.81),
}


@pytest.mark.parametrize("id", HARMLESS)
def test_a_form_that_is_wrong_is_not_said_of_a_run_about_as_good_as_simple_models(id):
    suspect, reached = HARMLESS[id]
    at_the_end = {**suspect, "falling": 9.0, "progress": 1.0}
    assert alarms({**at_the_end, "skill_reached": reached}, moment="end") == []
    assert alarms({**at_the_end, "skill_reached": 0.76}, moment="end") == [id]
