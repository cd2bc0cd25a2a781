"""What simple models learn: whether a metric is good enough, and what a run fell short by."""

import math

import pytest

from lightning_stab.diagnosis import Engine, Facts
from lightning_stab.diagnosis.facts import SAMPLED_STEP

LONG = {"epoch": 10.0, "step": 300, "samples": 4000.0, "progress": 1.0}


def alarms(moment="end", times=2, **known):
    """Return the alarms that stand after these facts were seen some times, the first one first."""
    engine = Engine()
    for _ in range(times):
        engine.update(Facts(**{"moment": moment, **LONG, **known}))
    return [f.id for f in engine.findings if f.is_alarm]


def test_what_was_reached_is_a_share_of_what_simple_models_have():
    def reached(**known):
        return Facts(**{"validation_skill": 0.6, **known}).skill_reached

    assert reached(simple_skill=0.8) == pytest.approx(0.75)
    assert reached(simple_skill=0.31) == pytest.approx(0.6 / 0.31)
    assert math.isnan(reached(simple_skill=0.3))  # they have learnt little
    assert math.isnan(reached())
    assert math.isnan(reached(simple_skill=0.8, validation_skill=math.nan))
    assert reached(simple_skill=0.8, reconstructs=0.0) == pytest.approx(0.75)
    assert math.isnan(reached(simple_skill=0.8, reconstructs=1.0))  # it is about the inputs
    assert reached(simple_skill=0.8, skill_reached=0.2) == 0.2
    assert Facts(validation_skill=0.5, simple_skill=0.8).useful_skill == 0.0


def test_a_metric_far_below_that_of_simple_models_is_worth_nothing():
    for reached, useful in ((0.64, 0.0), (0.65, 0.6), (1.3, 0.6), (math.nan, 0.6)):
        assert Facts(validation_skill=0.6, skill_reached=reached).useful_skill == useful
    assert Facts(validation_skill=0.6, useful_skill=0.2).useful_skill == 0.2
    assert math.isnan(Facts().useful_skill)


SYMPTOMS = {
    "learning-rate-too-high": {"early_rise": 6.0, "falling": 1.0, "early_update_ratio": 0.1},
    "loss-spike": {"input_peak": 90.0},
    "vanishing-gradient": {"gradient_depth_log10": -8.0, "gradient_depth_start_log10": -8.0},
    "saturated-units": {"saturated_fraction": {"a": 0.9}, "saturated_at_start": {"a": 0.9}},
}


@pytest.mark.parametrize("id_", SYMPTOMS)
def test_a_metric_above_one_half_hides_no_symptom_where_much_more_is_easily_learnt(id_):
    known = {**SYMPTOMS[id_], "learnt": 0.0, "validation_skill": 0.6}
    assert alarms(SAMPLED_STEP, **known) == []
    assert alarms(SAMPLED_STEP, **known, skill_reached=0.9) == []
    assert alarms(SAMPLED_STEP, **known, skill_reached=0.6) == [id_]


FORMS = {
    "target-scale": {"target_size": 140.0, "prediction_size": 0.4},
    "input-scale": {"input_size": 0.001},
    "input-scale ": {"input_size": 20.0},
    "loss-function": {"exclusive_labels": 1.0, "falling": 40.0, "recent_fall": 0.2},
    "": {},
}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_wrong_by_its_form_is_the_cause_where_a_run_ends_far_below_simple_models(name):
    """Without such a form it is only said that too little is learnt."""
    known = {**FORMS[name], "learnt": 0.6, "validation_skill": 0.6}
    named = name.strip() or "underfitting"
    assert alarms(**known, skill_reached=0.5)[:1] == [named]
    far = 0.92 if named == "target-scale" else 0.75
    assert named not in alarms(**known, skill_reached=far)
    assert alarms(**known) == []
    assert named not in alarms(**known, skill_reached=0.6, on_purpose=1.0)


def test_a_run_that_still_falls_steeply_and_is_not_yet_near_simple_models_was_too_short():
    known = {"learnt": 0.75, "validation_skill": 0.8, "falling": 9.0, "skill_reached": 0.79}
    assert alarms(**known, recent_fall=0.11) == ["too-short"]
    assert alarms(**known, recent_fall=0.09) == []
    assert alarms(**{**known, "skill_reached": 0.81}, recent_fall=0.11) == []
    assert alarms(**{**known, "falling": 3.9}, recent_fall=0.11) == []


def test_a_few_rows_that_are_being_learnt_by_heart_are_said():
    known = {"learnt": 0.77, "epoch_rows": 40.0, "generalization_gap": 0.78}
    poor = {"validation_learnt": -0.01, "validation_skill": 0.36}
    assert alarms(**known, **poor) == ["overfitting"]
    assert alarms(**known, **{**poor, "validation_learnt": 0.2}) == []
    assert alarms(**{**known, "epoch_rows": 60.0}, **poor) == []
    assert alarms(**{**known, "generalization_gap": 0.3}, **poor) == []


def test_what_weight_decay_has_done_is_no_other_cause():
    """While the weights shrink, gradients vanish and what was gained is lost."""
    over_time = {"gradient_time_log10": -45.0, "learnt": 0.0}
    assert alarms(SAMPLED_STEP, **over_time) == ["vanishing-gradient"]
    strong = {"weight_decay": 0.5, "falling": 0.0}
    assert alarms(SAMPLED_STEP, **over_time, **strong) == ["over-regularized"]
    lost = {"relapse": 1.8, "relapse_noise": 200.0, "improvement": -0.1, "learnt": 0.0}
    assert alarms(SAMPLED_STEP, **lost, falling=0.0) == ["learning-rate-too-high"]
    assert alarms(SAMPLED_STEP, **lost, **strong) == ["over-regularized"]


def test_units_that_dropout_sets_to_zero_are_not_dead():
    dead = {"dead_fraction": {"a": 1.0}, "learnt": 0.0, "falling": 0.0}
    assert alarms(SAMPLED_STEP, **dead, dropout=0.5) == ["dead-units"]
    assert alarms(SAMPLED_STEP, **dead, dropout=0.98) == ["over-regularized"]


NOISY = {"highest_rise": 9.0, "loss_ratio": 6.0, "learnt": -5.0, "skill_reached": -0.1}


def test_a_rate_at_which_the_run_could_go_nowhere_is_too_low_however_noisy_its_losses_are():
    """With batches of one row the loss is many times the first one by chance."""
    still = {**NOISY, "reach": 0.015, "highest_rate": 1e-6, "warming_up": 0.0}
    assert alarms(**still)[:1] == ["learning-rate-too-low"]
    assert "learning-rate-too-low" not in alarms(**{**still, "reach": 0.15})
    assert "learning-rate-too-low" not in alarms(**{**still, "skill_reached": 0.92})
    assert "learning-rate-too-low" not in alarms(**still, zero_gradient=1.0)


def test_a_warm_up_that_lasts_for_the_whole_run_is_said_where_little_was_reached():
    rising = {"warming_up": 1.0, "learnt": 0.35, "skill_reached": 0.4, "falling": 80.0}
    assert alarms(**rising) == ["learning-rate-too-low"]
    assert alarms(**{**rising, "skill_reached": 0.75}) == []


def test_nan_in_the_inputs_of_a_run_that_failed_is_said_though_it_took_no_step():
    """A binary cross-entropy, for one, refuses probabilities that are NaN."""
    known = {"nonfinite_inputs": 1.0, "step": 0, "epoch": 0.0, "samples": 0.0, "progress": 0.0}
    assert alarms(times=1, **known, failed=1.0) == ["non-finite"]
    assert alarms(times=1, **known) == []
    assert alarms(times=1, **{**known, "nonfinite_inputs": 0.0}, failed=1.0) == []
    assert alarms(times=1, **known, failed=1.0, learnt=0.5) == []


END = {
    "input-scale": {"input_size": 1186.0, "learnt": 0.88, "falling": 2.7},
    "bad-initialization": {"start_scale": 14.0, "learnt": 0.74, "start_loss_ratio": 158.0},
}


@pytest.mark.parametrize("id_", END)
def test_huge_inputs_and_weights_are_named_where_a_run_ends_below_simple_models(id_):
    known = {**END[id_], "validation_skill": 0.77}
    assert alarms(**known, skill_reached=0.81) == [id_]
    assert alarms(**known, skill_reached=0.86) == []
    assert alarms(**known, skill_reached=0.81, on_purpose=1.0) == []
    assert alarms(SAMPLED_STEP, **known, skill_reached=0.81, progress=0.4) == []


def test_classes_that_are_judged_one_by_one_are_named_where_the_loss_has_hardly_fallen():
    known = {"exclusive_labels": 1.0, "learnt": 0.26, "falling": 17.0, "recent_fall": 0.09}
    known |= {"validation_skill": 0.77, "epoch": 8.97, "step": 288, "samples": 9184.0}
    assert alarms(**known, skill_reached=0.77) == ["loss-function"]
    assert alarms(**known, skill_reached=0.81) == []
    assert alarms(**{**known, "learnt": 0.34}, skill_reached=0.77) == []
    assert alarms(**known, skill_reached=0.77, warming_up=1.0) == []


def test_a_rate_that_is_gone_before_the_last_quarter_leaves_what_was_not_learnt():
    def last(progress, **changed):
        known = {"rate_left": 1e-5, "learnt": 0.54, "validation_skill": 0.47, **changed}
        return alarms(SAMPLED_STEP, **{"skill_reached": 0.49, "progress": progress, **known})

    assert last(0.7) == ["learning-rate-too-low"]
    assert last(0.8) == []  # as a cosine ends
    assert last(0.7, rate_left=0.02) == []
    assert last(0.7, skill_reached=0.7) == []


@pytest.mark.parametrize("slow", [{"warming_up": 1.0}, {"highest_rate": 0.0}])
def test_while_no_step_counts_vanishing_gradients_are_not_the_cause(slow):
    for known in (
        {"gradient_depth_log10": -8.0, "gradient_depth_start_log10": -8.0},
        {"gradient_depth_log10": -3.6, "gradient_depth_start_log10": -3.6},
        {"gradient_time_log10": -7.0},
    ):
        known |= {"learnt": 0.0, "progress": 0.4}
        assert alarms(SAMPLED_STEP, **known) == ["vanishing-gradient"]
        assert "vanishing-gradient" not in alarms(SAMPLED_STEP, **known, **slow)


def test_a_loss_that_is_infinite_for_a_moment_is_no_alarm_in_a_run_as_good_as_simple_models():
    known = {"nonfinite_losses": 1.0, "loss_ratio": 0.25, "learnt": 0.69, "validation_skill": 0.8}
    assert alarms(**known, skill_reached=0.8) == ["non-finite"]
    assert alarms(**known) == ["non-finite"]
    assert alarms(**known, skill_reached=1.06) == []
    engine = Engine()
    (found,) = engine.update(Facts(moment="end", **LONG, **known, skill_reached=1.06))
    assert (found.id, found.severity) == ("non-finite", "info")


def test_a_run_of_a_few_steps_that_still_falls_steeply_was_too_short_however_good_it_is():
    known = {"step": 20, "epoch": 4.75, "samples": 456.0, "learnt": 0.31, "falling": 13.0}
    known |= {"validation_skill": 0.54, "skill_reached": 1.15}
    assert alarms(**known, recent_fall=0.2) == ["too-short"]
    assert alarms(**known, recent_fall=0.09) == []
    assert alarms(**{**known, "falling": 1.9}, recent_fall=0.2) == []
    assert alarms(**{**known, "learnt": 0.55}, recent_fall=0.2) == []
    assert alarms(**{**known, "step": 60}, recent_fall=0.2) == []
    assert alarms(**known, recent_fall=0.2, on_purpose=1.0) == []


def test_dropout_that_leaves_nearly_nothing_is_said_where_training_is_much_the_worse_for_it():
    known = {"dropout": 0.98, "learnt": 0.36, "skill_reached": 0.97, "validation_skill": 0.7}
    assert alarms(**known, generalization_gap=-0.24) == ["over-regularized"]
    assert alarms(**known, generalization_gap=-0.19) == []
    assert alarms(**{**known, "dropout": 0.94}, generalization_gap=-0.24) == []
    assert alarms(**{**known, "learnt": 0.51}, generalization_gap=-0.24) == []
    assert alarms(**{**known, "validation_skill": 0.91}, generalization_gap=-0.24) == []


def test_a_few_rows_that_have_been_learnt_by_heart_are_said_from_a_smaller_gap_on():
    known = {"learnt": 0.99, "epoch_rows": 40.0, "validation_learnt": 0.73}
    known |= {"validation_skill": 0.77}
    assert alarms(**known, generalization_gap=0.26) == ["overfitting"]
    assert alarms(**known, generalization_gap=0.19) == []
    assert alarms(**{**known, "learnt": 0.89}, generalization_gap=0.26) == []
    assert alarms(**{**known, "epoch_rows": 60.0}, generalization_gap=0.26) == []
