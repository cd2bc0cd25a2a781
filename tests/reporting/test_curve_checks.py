"""What curves alone say: each fault found, and healthy shapes left alone."""

import numpy as np
import pytest
from helpers.run_folders import falling

from lightning_stab.reporting.causes import causes_of, verdict_of
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
