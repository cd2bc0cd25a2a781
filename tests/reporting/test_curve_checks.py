"""What curves alone say: each fault found, and healthy shapes left alone."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.run_folders import FINDING, falling

from lightning_stab.reporting.causes import (
    Causes,
    causes_of,
    is_alarm,
    main_metric,
    outcome,
    verdict_of,
)
from lightning_stab.reporting.curve_checks import check_curves
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.series import Series

RNG = np.random.default_rng(0)


def run_of(**curves):
    series = {
        tag.replace("__", "/"): Series(np.arange(len(v)), np.asarray(v, float), len(v))
        for tag, v in curves.items()
    }
    return Run(None, series)


def ids(**curves):
    return {f["id"]: f["severity"] for f in check_curves(run_of(**curves))}


def noisy(values, size=0.05):
    return values + size * RNG.standard_normal(len(values))


def poisoned():
    values = falling()
    values[30:] = np.nan
    return values


FAULTS = {
    "non-finite": {"train_loss": poisoned()},
    "diverged": {"train_loss": np.r_[falling(20), np.geomspace(0.2, 1e6, 20)]},
    "nothing-learnt": {"train_loss": noisy(np.full(200, 2.3))},
    "loss-spikes": {"train_loss": np.where(np.arange(200) == 150, 9.0, noisy(falling(200)))},
    "overfitting": {
        "train_loss": falling(100),
        "val_loss": np.r_[np.linspace(2, 0.6, 10), np.linspace(0.6, 2.2, 20)],
    },
}
HEALTHY = {
    "falls": {"train_loss": falling(200)},
    "falls with noise": {"train_loss": noisy(falling(400), 0.15)},
    "a negative loss": {"train_loss": noisy(falling(300)) - 7.0},
    "one that falls below 0": {"train_loss": np.linspace(3, -40, 100)},
    "a warm start": {"train_loss": noisy(np.linspace(0.5, 0.3, 300), 0.02)},
    "with validation": {"train_loss": falling(90), "val_loss": falling(9) + 0.1},
    "a slight rise of the validation loss": {
        "train_loss": falling(90),
        "val_loss": np.r_[falling(20), np.linspace(0.1, 0.3, 10)],
    },
    "two points": {"train_loss": [2.0, 2.0]},
    "a metric undefined at first": {"train_loss": falling(), "val_f1": [np.nan, 0.3, 0.5]},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault):
    found = ids(**FAULTS[fault])
    assert found.get(fault) in ("warning", "error")


@pytest.mark.parametrize("shape", HEALTHY)
def test_a_healthy_curve_is_left_alone(shape):
    found = ids(**HEALTHY[shape])
    assert {id_ for id_, severity in found.items() if severity != "info"} == set()
    assert verdict_of(run_of(**HEALTHY[shape]), causes_of(run_of(**HEALTHY[shape]))).state == "ok"


def test_a_run_that_was_too_short_is_named_and_is_no_alarm():
    assert ids(train_loss=np.linspace(3.0, 1.0, 40)) == {"too-short": "info"}


def test_a_long_plateau_is_worth_knowing():
    assert ids(train_loss=np.r_[falling(50), np.full(200, 0.1)]) == {"plateau": "info"}


def test_overfitting_with_a_metric_that_holds_is_no_alarm():
    curves = FAULTS["overfitting"]
    assert ids(**curves, val_accuracy=np.linspace(0.2, 0.9, 30))["overfitting"] == "info"
    falls = np.r_[np.linspace(0.2, 0.9, 10), np.linspace(0.9, 0.6, 20)]
    assert ids(**curves, val_accuracy=falls)["overfitting"] == "warning"


def test_one_cause_has_one_finding():
    values = np.r_[falling(20), np.geomspace(0.2, 1e6, 20), [np.inf, np.nan]]
    assert list(ids(train_loss=values, val_loss=values)) == ["non-finite"]


def test_a_nonfinite_gradient_comes_before_the_loss():
    (found,) = check_curves(run_of(train_loss=poisoned(), grad_norm__total=np.r_[1.0, np.nan]))
    assert found["step"] == 1
    assert "gradient" in found["message"]


def test_the_step_of_a_divergence_is_where_it_left_for_good():
    values = np.r_[falling(50), np.geomspace(0.2, 1e6, 50)]
    (found,) = check_curves(run_of(train_loss=values))
    assert 55 <= found["step"] <= 70


def found(id_, **curves):
    return next((f for f in check_curves(run_of(**curves)) if f["id"] == id_), None)


@pytest.mark.parametrize(("points", "known"), [(7, False), (8, True)])
def test_a_divergence_is_judged_from_eight_points_on(points, known):
    values = [1.0, 0.5, *[9.0] * (points - 2)]
    assert (found("diverged", train_loss=values) is not None) == known


@pytest.mark.parametrize(
    ("start", "best", "last", "diverged"),
    [(1.0, 1.0, 2.0, False), (1.0, 1.0, 2.01, True),  # twice the start
     (1.0, -2.0, 4.0, False), (1.0, -2.0, 4.01, True),  # by more than it ever came down
     (-1.0, -1.0, 0.0, False), (-1.0, -1.0, 0.01, True)],
)  # fmt: skip
def test_a_loss_has_diverged_when_it_doubled_and_rose_further_than_it_fell(
    start, best, last, diverged
):
    values = [start, *[best] * 5, *[last] * 5]
    at = found("diverged", train_loss=values)
    assert (at is not None) == diverged
    if at:
        assert at["step"] == 6
        assert at["evidence"] == {"first_loss": {"value": start}, "last_loss": {"value": last}}
        assert f"rose from {start:g} at the start to {last:g} at the end" in at["message"]


@pytest.mark.parametrize(("points", "known"), [(15, False), (16, True)])
def test_that_nothing_was_learnt_is_said_from_sixteen_points_on(points, known):
    at = found("nothing-learnt", train_loss=[2.0] * points)
    assert (at is not None) == known
    assert at is None or (at["step"], at["from_curves"], at["layers"]) == (0, True, [])


@pytest.mark.parametrize(("end", "flat"), [(1.97, True), (1.95, False)])
def test_two_per_cent_of_the_start_are_learning(end, flat):
    values = [*[2.0] * 8, *[end] * 8]
    assert (found("nothing-learnt", train_loss=values) is not None) == flat


def test_an_improvement_has_to_be_twice_the_noise():
    values = np.tile([1.0, 2.0], 10)  # neighbours differ by 1; a median of 3 has 1 / sqrt(3)
    low, enough = values.copy(), values.copy()
    low[-3:] -= 2.1  # the least median is then 1.1 below the first, of 2 / sqrt(3) = 1.155
    enough[-3:] -= 2.2
    assert found("nothing-learnt", train_loss=low)
    assert not found("nothing-learnt", train_loss=enough)


def spiked(*heights, length=60):
    values = np.r_[2.0, 2.0, 2.0, np.ones(length - 3)]
    for place, height in heights:
        values[place] += height
    return values


@pytest.mark.parametrize(
    ("values", "severity", "words"),
    [
        (spiked((30, 0.31)), "info", "jumped 1 time, to 1.31 at step 30."),
        (spiked((30, 0.29)), None, ""),  # less than 0.3 of the range
        (spiked((30, 1.1)), "warning", "jumped 1 time, to 2.1 at step 30."),  # above its start
        (spiked((25, 0.4), (50, 0.7)), "info", "jumped 2 times, to 1.7 at step 50."),
        (spiked((25, 0.4), (26, 0.4)), "info", "jumped 1 time"),  # one that lasts
        (spiked((20, 9.0), length=31), None, ""),  # too short to judge
        (spiked((20, 9.0), length=32), "warning", "jumped 1 time"),
    ],
)
def test_spikes_are_counted_and_those_above_the_start_are_alarms(values, severity, words):
    at = found("loss-spikes", train_loss=values)
    assert (at and at["severity"]) == severity
    assert not at or words in at["message"]
    assert not at or at["evidence"]["highest_loss"]["value"] == values[3:].max()


def test_three_spikes_below_the_start_are_an_alarm():
    values = np.linspace(9.0, 0.0, 200)
    values[[120, 150, 180]] += 3.0
    at = found("loss-spikes", train_loss=values)
    assert (at["severity"], at["step"]) == ("warning", 120)


@pytest.mark.parametrize(("since", "known"), [(0.5, True), (0.7, False)])
def test_a_plateau_is_named_where_it_fills_the_last_two_fifths(since, known):
    down = int(200 * since)
    values = np.r_[np.linspace(2.0, 1.0, down), np.full(200 - down, 1.0)]
    at = found("plateau", train_loss=values)
    assert (at is not None) == known
    assert at is None or at["step"] == pytest.approx(down, abs=6)


@pytest.mark.parametrize(
    ("val", "overfits"),
    [
        ([2.0, 1.0, 1.51, 1.51, 1.51], True),  # half of what it had come down
        ([2.0, 1.0, 1.49, 1.49, 1.49], False),
        ([2.0, 1.5, 1.0, 1.6, 1.6], False),  # the best is among the last three
        ([1.0, 1.03, 1.03, 1.03], True),  # never came down: 5 % of the best stand for it
        ([1.0, 1.02, 1.02, 1.02], False),
        ([1.0, 2.0, 2.0], False),  # too few
    ],
)
def test_overfitting_is_a_rise_by_half_of_what_the_loss_had_come_down(val, overfits):
    at = found("overfitting", train_loss=np.linspace(2.0, 0.5, 20), val_loss=val)
    assert (at is not None) == overfits
    if at:
        assert at["step"] == int(np.argmin(val))
        assert at["evidence"] == {"best": {"value": 1.0}, "last": {"value": val[-1]}}


def test_without_a_training_loss_that_falls_on_it_is_no_overfitting():
    val = [2.0, 1.0, 2.0, 2.0, 2.0]
    assert not found("overfitting", train_loss=np.linspace(0.5, 2.0, 20), val_loss=val)
    assert not found("overfitting", val_loss=val)


@pytest.mark.parametrize(("late", "severity"), [(0.89, "info"), (0.87, "warning")])
def test_a_metric_holds_within_two_per_cent_of_its_best(late, severity):
    curves = FAULTS["overfitting"]
    at = found("overfitting", **curves, val_accuracy=[0.2, 0.9, *[late] * 10])
    assert at["severity"] == severity
    errors = [0.8, 0.1, *[0.1 + 0.9 - late] * 10]
    assert found("overfitting", **curves, val_err=errors)["severity"] == "warning"


@pytest.mark.parametrize(
    ("late", "severity"),
    [
        ([0.9, 0.5, 0.5], "info"),  # of few values the last three count,
        ([0.9, 0.5, 0.5, 0.5], "warning"),
        ([0.9, *[0.5] * 3, *[0.5] * 8], "warning"),  # of many a quarter
        ([*[0.2] * 10, 0.9, *[0.5] * 3], "info"),
        ([*[0.2] * 10, 0.9, *[0.5] * 4], "warning"),
    ],
)
def test_a_metric_holds_by_its_last_values(late, severity):
    at = found("overfitting", **FAULTS["overfitting"], val_accuracy=[0.2, 0.3, *late])
    assert at["severity"] == severity


def test_of_fewer_than_four_values_of_a_metric_nothing_is_said():
    for values, severity in (([0.9, 0.9, 0.9], "warning"), ([0.9] * 4, "info")):
        at = found("overfitting", **FAULTS["overfitting"], val_accuracy=values)
        assert at["severity"] == severity


@pytest.mark.parametrize(
    ("values", "short"),
    [
        ([*np.linspace(2.0, 1.0, 33), *np.linspace(1.0, 0.85, 8)[1:]], True),
        ([*np.linspace(2.0, 1.0, 33), *np.linspace(1.0, 0.98, 8)[1:]], False),
        (np.linspace(2.0, 1.0, 6), True),
        (np.linspace(2.0, 1.0, 5), False),
    ],
)
def test_a_run_was_too_short_where_a_tenth_came_in_the_last_fifth(values, short):
    at = found("too-short", train_loss=values)
    assert (at is not None) == short
    assert at is None or at["step"] == len(values) - 1


def test_a_share_of_a_straight_line_is_its_last_fifth():
    assert found("too-short", train_loss=np.linspace(2.0, 1.0, 102))["evidence"]["late_share"][
        "value"
    ] == pytest.approx(0.2, abs=0.01)


def test_without_a_training_loss_the_validation_loss_is_judged():
    assert found("nothing-learnt", val_loss=[2.0] * 16)["message"].startswith("`val_loss` is 2")
    assert found("too-short", val_loss=np.linspace(2.0, 1.0, 20))
    assert ids(val_accuracy=[0.1] * 30) == {}
    # with both, the validation loss says when to stop
    both = {"train_loss": np.linspace(3.0, 1.0, 40), "val_loss": falling(40)}
    assert not found("too-short", **both)
    both = {"train_loss": falling(40), "val_loss": np.linspace(3.0, 1.0, 40)}
    assert "`val_loss` was still falling" in found("too-short", **both)["message"]


def test_a_loss_that_learnt_nothing_is_neither_overfitting_nor_too_short():
    curves = {"train_loss": [2.0] * 40, "val_loss": [2.0, 1.0, *[3.0] * 20]}
    assert ids(**curves) == {"nothing-learnt": "warning"}


def test_the_first_loss_that_is_no_number_is_named():
    nan = np.nan
    at = found("non-finite", train_loss=[1.0, 1.0, nan], val_loss=[1.0, nan, nan])
    assert (at["step"], at["severity"]) == (1, "error")
    assert at["message"] == "`val_loss` is not finite from step 1 on."
    assert found("non-finite", train_loss=[1.0], val_accuracy=[nan]) is None
    at = found("non-finite", train_loss=[1.0] * 9, grad_norm__total=[1.0, 1.0, np.inf])
    assert at["message"] == "The gradient's norm is not finite from step 2 on."
    at = found("non-finite", train_loss=np.r_[np.ones(1234), nan])
    assert at["message"].endswith("from step 1,234 on.")


def test_a_plateau_needs_thirty_two_medians():
    def standing(points):  # medians of three: two fewer than points
        values = np.r_[np.linspace(2.0, 1.0, 10), np.full(points - 10, 1.0)]
        return found("plateau", train_loss=values)

    assert standing(33) is None
    assert standing(34)["step"] == 8  # where the medians have come within a hundredth
    # the first five have a median of 1.78: a hundredth of what it came down is 0.0078
    near = np.r_[np.linspace(2.0, 1.0, 10), np.full(30, 1.0083), np.full(60, 1.0)]
    assert found("plateau", train_loss=near)["step"] > 35
    near = np.r_[np.linspace(2.0, 1.0, 10), np.full(30, 1.0073), np.full(60, 1.0)]
    assert found("plateau", train_loss=near)["step"] < 15


def test_findings_come_in_the_order_of_their_steps():
    values = np.r_[np.linspace(9.0, 0.0, 100), np.zeros(300)]
    values[50] += 9.0
    order = [f["step"] for f in check_curves(run_of(train_loss=values))]
    assert len(order) > 1
    assert order == sorted(order)


# --- causes and the verdict


def of(id_, severity="warning", **more):
    return {**FINDING, "id": id_, "severity": severity, "advice": ["Do this.", "Or that."], **more}


def caused(*findings, diagnosed=True, about=None, **curves):
    run = replace(run_of(**curves), findings=findings, diagnosed=diagnosed, about=about or {})
    causes = causes_of(run)
    return run, causes, [[f["id"] for f in part] for part in (
        causes.alarms, causes.remarks, causes.consequences, causes.withdrawn)]  # fmt: skip


SPIKED = {"train_loss": np.where(np.arange(200) == 150, 9.0, falling(200))}
BLOWN = {"train_loss": np.r_[falling(20), np.geomspace(0.2, 1e6, 20)]}
SHORT = {"train_loss": np.linspace(3.0, 1.0, 40)}


def test_causes_are_put_together_from_the_doctor_and_the_curves():
    gone = of("labels", state="withdrawn")
    for findings, diagnosed, curves, expected in (
        ((), False, SPIKED, [["loss-spikes"], [], [], []]),
        ((), True, SPIKED, [[], [], [], []]),  # the doctor has looked, and says nothing
        ((), True, BLOWN, [["diverged"], [], [], []]),  # which is certain
        ((of("labels"),), True, BLOWN, [["labels"], [], ["diverged"], []]),  # which follows
        ((of("labels"),), False, BLOWN, [["diverged", "labels"], [], [], []]),
        ((of("diverged"),), True, BLOWN, [["diverged"], [], [], []]),
        ((), False, SHORT, [[], ["too-short"], [], []]),
        ((), True, SHORT, [[], ["too-short"], [], []]),
        ((of("plateau", "info"), gone), True, {}, [[], ["plateau"], [], ["labels"]]),
    ):
        assert caused(*findings, diagnosed=diagnosed, **curves)[2] == expected


def test_the_worst_and_then_the_earliest_cause_comes_first():
    findings = (of("a", step=1), of("b", "error", step=9), of("c", step=5, since=0),
                of("d", "error", step=3))  # fmt: skip
    assert caused(*findings)[2][0] == ["d", "b", "c", "a"]


def verdict(*findings, **more):
    run, causes, _ = caused(*findings, **more)
    found = verdict_of(run, causes)
    assert is_alarm(run, causes) == (found.state in ("warning", "error"))
    return found.state, found.plain, found.text, found.advice


def test_the_verdict_in_words():
    assert verdict() == ("unknown", "No judgement", "The run has logged no number.", "")
    state, plain, text, _ = verdict(diagnosed=False, val_accuracy=[0.5, 0.6])
    assert (state, plain) == ("unknown", "No judgement")
    assert text.startswith("No loss is among the tags")
    state, plain, text, advice = verdict(diagnosed=False, train_loss=falling())
    assert (state, plain, advice) == ("ok", "Healthy by its curves", "")
    assert text.endswith("No <code>TrainingDoctor</code> looked further.")
    state, plain, text, advice = verdict(**SHORT)
    assert (state, plain) == ("ok", "Healthy, and still improving at the end")
    assert text == (
        "<code>train_loss</code> fell from 3 to 1. <code>TrainingDoctor</code> found nothing wrong."
    )
    assert advice.startswith("Train longer")
    state, plain, text, _ = verdict(about={"ended": "exception", "failure": "No `y`."})
    assert (state, plain) == ("error", "The run ended in an exception")
    assert text == "No <code>y</code>. Nothing wrong was found before it."
    one = of("labels", step=7, since=7, layers=[])
    message = "The gradient shrinks by 10<sup>9.3</sup>."
    head = "Wrong or unlearnable labels, since step 7"
    assert verdict(one) == ("warning", head, message, "Do this.")
    assert verdict(one, of("plateau"))[2].endswith(" 1 other cause below.")
    assert verdict(one, of("plateau"), of("metric"))[2].endswith(" 2 other causes below.")
    early = of("dead-units", step=0, since=0, advice=[])
    assert verdict(early)[1] == "Dead units in net.0, from the start"
    assert verdict(early)[3] == ""


def test_how_loss_and_metrics_came_along():
    run = run_of(train_loss=[2.0, np.nan, 3.0], val_loss=[1.0, 0.5], val_acc=[0.1, 0.75, np.nan])
    assert outcome(run) == (
        "<code>train_loss</code> rose from 2 to 3. <code>val_loss</code> fell from 1 to 0.5."
        " <code>val_acc</code> ended at 0.75."
    )
    assert outcome(run_of(train_loss=[2.0])) == ""
    assert main_metric(run_of(train_acc=[0.1], val_f1=[0.2], val_x=[0.3])) == "val_f1"
    assert main_metric(run_of(train_acc=[0.1], val_f1=[np.nan])) == "train_acc"
    assert main_metric(run_of(val_x=[0.3])) == ""
    assert not is_alarm(run, Causes((), (FINDING,), (), ()))
